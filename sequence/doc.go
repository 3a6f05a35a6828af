// Package sequence turns tokens into block keys, and says which slots of which
// tier hold the blocks of a sequence.
//
// # Keys
//
// A [TokenSequence] cuts a growing run of tokens into blocks of a fixed size and
// names each whole block by a [block.Key] that covers every token up to its end,
// so a key also names the prefix that ends with it: two requests share a block
// exactly when they share everything before it.
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
// # Slots
//
// An [Assignments] follows one sequence in one tier. Slots enter it as pending,
// are staged when their block has a key, and are assigned when they hold its
// bytes:
//
//	ExtendBlockIDs       StagePending       CommitStaged, CommitPinned
//	──────────────▶ pending ─────────▶ staged ─────────▶ assigned ──▶ Truncate, Clear
//	                   │                  └──▶ TakeStaged    ▲
//	                   └───────── AssignPending ─────────────┤
//	ExtendAssigned ──────────────────────────────────────────┘
//
// A call that fails changes nothing. [ZipAssigned] and [ZipAssignedPending] set
// two tiers side by side: the latter is the plan of what to copy from one into
// the other.
//
// The type parameter says what keeps the bytes of an assigned slot in place. With
// [Bare] slots are numbers, and somebody else keeps them, such as the engine whose
// pool they are in. With another [Pin], such as the view of a block in a tier, a
// block comes with its pin: a hit in the cache becomes assigned at once by
// ExtendAssigned, a block that was staged by CommitPinned when its bytes have been
// registered. Truncate and Clear release them.
//
// Keys that an Assignments has taken stay as they are: whoever truncates or unwinds
// the sequence truncates it as well, before the sequence grows again.
//
// The package is pure: no I/O, clock, lock, goroutine or context.
package sequence
