// Package trace reads recorded request traces in the format that the Mooncake
// project publishes, and tells how well an infinite cache would do on them.
//
// A trace is text, one JSON object a line, in order of arrival:
//
//	{"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [0, 46, 47, …]}
//
// timestamp is in milliseconds since the start, the lengths are in tokens, and
// hash_ids has one number for each block of [BlockTokens] tokens of the input. A
// number stands for its block and for everything before it, so two requests share
// a prefix exactly as far as their hash_ids agree. Other fields are ignored.
//
// Source: Qin et al., "Mooncake: A KVCache-centric Disaggregated Architecture for
// LLM Serving", FAST 2025; testdata/README.md.
package trace
