//go:build cairn_mutant

package mutant

// Possible tells whether this build can be broken.
const Possible = true

var chosen Name

// Is tells whether the code is to be broken in this way.
func Is(n Name) bool { return n == chosen }

// Choose breaks the code in one way from now on; None mends it. It must not be
// called while the code runs.
func Choose(n Name) { chosen = n }
