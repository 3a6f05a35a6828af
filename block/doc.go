// Package block is the vocabulary that every other package of Cairn shares:
// the [Key] that names a block, the [Descriptor] of its bytes, the [Tier] that
// holds it, and the [Checksum] that guards it. It does no I/O.
//
// # Keys
//
// A key is 16 bytes, big-endian:
//
//	0        3                                    16
//	+--------+------------------------------------+
//	|position|  hash                              |
//	| 24 bit |  104 bit                           |
//	+--------+------------------------------------+
//
// position is the index of the block in its token sequence, so the keys of one
// sequence can be told apart and ordered without a look-up. The hash covers
// everything before the block as well (package sequence), so a key also names
// the prefix that ends with it. Blocks that are named by a string rather than
// by a sequence carry [NamedPosition].
//
// 104 bits keep the chance of any accidental collision among 10^12 blocks near
// 10^-8 (birthday bound n²/2^105).
package block
