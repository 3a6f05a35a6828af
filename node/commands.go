package node

import (
	"context"
	"maps"

	"cairn/resp"
)

// newCommands is every command of the protocol.
func newCommands() commandTable {
	every := func(step, from int) func(int) bool {
		return func(arg int) bool { return arg >= from && (arg-from)%step == 0 }
	}
	commands := commandTable{
		"GET":          {arity: 2, do: (*session).get},
		"SET":          {arity: -3, payload: only(2), do: (*session).set},
		"SETNX":        {arity: 3, payload: only(2), do: (*session).setNX},
		"SETEX":        {arity: 4, payload: only(3), do: (*session).setEX},
		"PSETEX":       {arity: 4, payload: only(3), do: (*session).setEX},
		"GETSET":       {arity: 3, payload: only(2), do: (*session).getSet},
		"GETDEL":       {arity: 2, do: (*session).getDel},
		"GETEX":        {arity: -2, do: (*session).getEx},
		"GETRANGE":     {arity: 4, do: (*session).getRange},
		"SUBSTR":       {arity: 4, do: (*session).getRange},
		"STRLEN":       {arity: 2, do: (*session).strLen},
		"MGET":         {arity: -2, do: (*session).mGet},
		"MSET":         {arity: -3, payload: every(2, 2), do: (*session).mSet},
		"EXISTS":       {arity: -2, do: (*session).exists},
		"TOUCH":        {arity: -2, do: (*session).exists},
		"DEL":          {arity: -2, do: (*session).del},
		"UNLINK":       {arity: -2, do: (*session).del},
		"TYPE":         {arity: 2, do: (*session).typeOf},
		"TTL":          {arity: 2, do: ends(leftSeconds)},
		"PTTL":         {arity: 2, do: ends(leftMillis)},
		"EXPIRETIME":   {arity: 2, do: ends(endSeconds)},
		"PEXPIRETIME":  {arity: 2, do: ends(endMillis)},
		"EXPIRE":       {arity: -3, do: expire("EX")},
		"PEXPIRE":      {arity: -3, do: expire("PX")},
		"EXPIREAT":     {arity: -3, do: expire("EXAT")},
		"PEXPIREAT":    {arity: -3, do: expire("PXAT")},
		"PERSIST":      {arity: 2, do: (*session).persist},
		"SCAN":         {arity: -2, do: (*session).scan},
		"KEYS":         {arity: 2, do: (*session).keys},
		"DBSIZE":       {arity: 1, do: (*session).dbSize},
		"PING":         {arity: -1, do: (*session).ping},
		"ECHO":         {arity: 2, do: (*session).echo},
		"HELLO":        {arity: -1, do: (*session).hello},
		"AUTH":         {arity: -2, do: (*session).auth},
		"SELECT":       {arity: 2, do: (*session).selectDB},
		"CLIENT":       {arity: -2, do: (*session).client},
		"COMMAND":      {arity: -1, do: (*session).command},
		"CONFIG":       {arity: -2, do: (*session).config},
		"INFO":         {arity: -1, do: (*session).info},
		"QUIT":         {arity: -1, do: (*session).quit},
		"RESET":        {arity: 1, do: (*session).reset},
		"SUBSCRIBE":    {arity: -2, do: subscribe(byChannel)},
		"UNSUBSCRIBE":  {arity: -1, do: unsubscribe(byChannel)},
		"PSUBSCRIBE":   {arity: -2, do: subscribe(byPattern)},
		"PUBLISH":      {arity: 3, do: (*session).publish},
		"PUBSUB":       {arity: -2, do: (*session).pubsubInfo},
		"FLUSHDB":      {arity: -1, do: (*session).flushDB},
		"PUNSUBSCRIBE": {arity: -1, do: unsubscribe(byPattern)},
	}
	maps.Copy(commands, ownCommands(every))
	maps.Copy(commands, sequenceCommands(every))
	maps.Copy(commands, deviceCommands())
	return commands
}

// ownCommands are those that Redis does not have.
func ownCommands(every func(step, from int) func(int) bool) commandTable {
	return commandTable{
		"CAIRN.MGET":      {arity: -3, do: (*session).cairnMGet},
		"CAIRN.PUT":       {arity: 5, payload: only(4), do: (*session).cairnPut},
		"CAIRN.MATCH":     {arity: -3, do: (*session).cairnMatch},
		"CAIRN.STAT":      {arity: 1, do: (*session).cairnStat},
		"CAIRN.ROUTE":     {arity: 2, do: (*session).cairnRoute},
		"CAIRN.DONE":      {arity: -2, do: (*session).cairnDone},
		"CAIRN.GET":       {arity: -2, do: (*session).cairnGet},
		"CAIRN.CAS":       {arity: -4, payload: only(3), do: (*session).cairnCAS},
		"CAIRN.WATCH":     {arity: 4, do: (*session).cairnWatch},
		"CAIRN.CLEAR":     {arity: 2, do: (*session).cairnClear},
		"CAIRN.STAGE":     {arity: -5, payload: every(2, 4), do: (*session).cairnStage, staged: true},
		"CAIRN.OWNED":     {arity: 4, do: (*session).cairnOwned},
		"CAIRN.TAKE":      {arity: -3, do: (*session).cairnTake},
		"CAIRN.DROP":      {arity: -2, do: (*session).cairnDrop},
		"CAIRN.FLUSH":     {arity: 1, do: (*session).cairnFlush},
		"CAIRN.SET":       {arity: -3, payload: only(2), do: (*session).set},
		"CAIRN.STAGED":    {arity: 3, do: (*session).cairnStaged},
		"CAIRN.VERSION":   {arity: 2, do: (*session).cairnVersion},
		"CAIRN.SESSION":   {arity: -1, do: (*session).cairnSession},
		"CAIRN.BARRIER":   {arity: 1, do: (*session).cairnBarrier},
		"CAIRN.EXPLAIN":   {arity: 2, do: (*session).cairnExplain},
		"CAIRN.NAMESPACE": {arity: 2, do: (*session).cairnNamespace},
	}
}

func (s *session) quit(_ context.Context, w *resp.Writer, _ [][]byte) {
	w.Status("OK")
	w.CloseAfterReply()
}

func (s *session) reset(_ context.Context, w *resp.Writer, _ [][]byte) {
	s.namespace, s.nowhere, s.name = s.n.cfg.Namespaces[0], false, ""
	s.n.pubsub.removeAll(&s.subscriber)
	s.closeSequences()
	s.closeDevice()
	s.sequence.Store(0)
	w.SetRESP3(false)
	w.Status("RESET")
}
