//go:build !cairn_mutant

package mutant

// Possible tells whether this build can be broken.
const Possible = false

// Is tells whether the code is to be broken in this way: never, in this build.
func Is(Name) bool { return false }

// Choose does nothing in this build.
func Choose(Name) {}
