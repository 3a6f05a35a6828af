// Package wire is what node and client say to each other beyond the Redis
// protocol: the batch of blocks, the token of a change, the version of a named
// block, the codes of errors.
// docs/protocol.md describes it for other languages.
package wire
