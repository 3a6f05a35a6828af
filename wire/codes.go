package wire

// The codes of error replies, the first word of the text. They stand for the
// same kinds of errors on both sides.
const (
	CodeFull        = "FULL"        // no room: every block is pinned or not yet durable
	CodeTooLarge    = "TOOLARGE"    // larger than a limit of the node
	CodeNoSpace     = "NOSPACE"     // the file system of a node is full, or its disk is full of names' values
	CodeConflict    = "CONFLICT"    // other bytes under this key, or a name has another version: see Conflict
	CodeNamespace   = "NONAMESPACE" // no such namespace
	CodeNotFound    = "NOTFOUND"    // no such block or name
	CodeUnavailable = "UNAVAILABLE" // not done: a time limit, or the log is out of reach; another node may do it
	CodeUnknown     = "UNKNOWN"     // a change that may have been made, or may be made yet
	CodeNoHome      = "NOHOME"      // no live node can keep the block durably
	CodeUnreachable = "UNREACHABLE" // the version is known, but no node that has its bytes answers
	CodeSequence    = "NOSEQUENCE"  // no such open sequence on this connection
	CodePinned      = "PINNED"      // sequences, or engines in GPU memory, hold as much of a tier as they may
	CodeLimit       = "LIMIT"       // a limit of the node on sequences, or on engines in GPU memory
	CodeDevice      = "NODEVICE"    // no GPU memory for engines, or not over this connection
	CodeSlot        = "NOSLOT"      // no such slot, pin or region on this connection
	CodeHandle      = "NOHANDLE"    // no memory that the node can map has the handle
	CodeOther       = "ERR"
)
