// Package cairn is the root of the module; it holds no code. Start at
// ARCHITECTURE.md, or at the packages [cairn/client] and [cairn/cmd/cairn].
package cairn
