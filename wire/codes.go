package wire

// The codes of error replies, the first word of the text. They stand for the
// same kinds of errors on both sides.
const (
	CodeFull        = "FULL"        // no room: every block is pinned or not yet durable
	CodeTooLarge    = "TOOLARGE"    // larger than a limit of the node
	CodeNoSpace     = "NOSPACE"     // the node's file system is full
	CodeConflict    = "CONFLICT"    // other bytes under this key, or a lost race for a name
	CodeNamespace   = "NONAMESPACE" // no such namespace
	CodeNotFound    = "NOTFOUND"    // no such block or name
	CodeUnavailable = "UNAVAILABLE" // not now: a time limit, or the log is out of reach
	CodeOther       = "ERR"
)
