// Package sequence turns tokens into block keys. A [TokenSequence] cuts a
// growing run of tokens into blocks of a fixed size and names each whole block
// by a [block.Key] that covers every token up to its end, so a key also names
// the prefix that ends with it: two requests share a block exactly when they
// share everything before it.
//
// A [Namespace] says what must agree before two requests may share anything
// (tenant, model, tokenizer, block size, element type, layout, generation); its
// [Salt] goes into every key, so blocks of two namespaces never meet.
//
// Two hashers make keys. [SHA256] is the default; it is collision resistant,
// so one tenant cannot poison another's prefix. [XXH3] reproduces the chained
// XXH3-64 of a Dynamo deployment, whose keys can then be matched; it is not
// collision resistant.
//
// The package is pure: no I/O, clock, lock, goroutine or context.
package sequence
