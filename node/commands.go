package node

import (
	"context"

	"cairn/resp"
)

// newCommands is every command of the protocol.
func newCommands() commandTable {
	every := func(step, from int) func(int) bool {
		return func(arg int) bool { return arg >= from && (arg-from)%step == 0 }
	}
	return commandTable{
		"GET":         {2, nil, (*session).get},
		"SET":         {-3, only(2), (*session).set},
		"SETNX":       {3, only(2), (*session).setNX},
		"SETEX":       {4, only(3), (*session).setEX},
		"PSETEX":      {4, only(3), (*session).setEX},
		"GETSET":      {3, only(2), (*session).getSet},
		"GETDEL":      {2, nil, (*session).getDel},
		"GETEX":       {-2, nil, (*session).getEx},
		"GETRANGE":    {4, nil, (*session).getRange},
		"SUBSTR":      {4, nil, (*session).getRange},
		"STRLEN":      {2, nil, (*session).strLen},
		"MGET":        {-2, nil, (*session).mGet},
		"MSET":        {-3, every(2, 2), (*session).mSet},
		"EXISTS":      {-2, nil, (*session).exists},
		"TOUCH":       {-2, nil, (*session).exists},
		"DEL":         {-2, nil, (*session).del},
		"UNLINK":      {-2, nil, (*session).del},
		"TYPE":        {2, nil, (*session).typeOf},
		"TTL":         {2, nil, ends(leftSeconds)},
		"PTTL":        {2, nil, ends(leftMillis)},
		"EXPIRETIME":  {2, nil, ends(endSeconds)},
		"PEXPIRETIME": {2, nil, ends(endMillis)},
		"EXPIRE":      {-3, nil, expire("EX")},
		"PEXPIRE":     {-3, nil, expire("PX")},
		"EXPIREAT":    {-3, nil, expire("EXAT")},
		"PEXPIREAT":   {-3, nil, expire("PXAT")},
		"PERSIST":     {2, nil, (*session).persist},
		"SCAN":        {-2, nil, (*session).scan},
		"KEYS":        {2, nil, (*session).keys},
		"DBSIZE":      {1, nil, (*session).dbSize},
		"PING":        {-1, nil, (*session).ping},
		"ECHO":        {2, nil, (*session).echo},
		"HELLO":       {-1, nil, (*session).hello},
		"AUTH":        {-2, nil, (*session).auth},
		"SELECT":      {2, nil, (*session).selectDB},
		"CLIENT":      {-2, nil, (*session).client},
		"COMMAND":     {-1, nil, (*session).command},
		"CONFIG":      {-2, nil, (*session).config},
		"INFO":        {-1, nil, (*session).info},
		"QUIT":        {-1, nil, (*session).quit},
		"RESET":       {1, nil, (*session).reset},
		"SUBSCRIBE":   {-2, nil, subscribe(byChannel)},
		"UNSUBSCRIBE": {-1, nil, unsubscribe(byChannel)},
		"PSUBSCRIBE":  {-2, nil, subscribe(byPattern)},
		"PUBLISH":     {3, nil, (*session).publish},
		"CAIRN.MGET":  {-3, nil, (*session).cairnMGet},
		"CAIRN.PUT":   {5, only(4), (*session).cairnPut},
		"CAIRN.MATCH": {-3, nil, (*session).cairnMatch},
		"CAIRN.STAT":  {1, nil, (*session).cairnStat},
		"CAIRN.ROUTE": {2, nil, (*session).cairnRoute},
		"CAIRN.DONE":  {2, nil, (*session).cairnDone},
		"CAIRN.GET":   {-2, nil, (*session).cairnGet},
		"CAIRN.CAS":   {-4, only(3), (*session).cairnCAS},
		"CAIRN.WATCH": {4, nil, (*session).cairnWatch},
		"CAIRN.CLEAR": {2, nil, (*session).cairnClear},
		"FLUSHDB":     {-1, nil, (*session).flushDB},
		"CAIRN.STAGE": {-5, every(2, 4), (*session).cairnStage},
		"CAIRN.OWNED": {4, nil, (*session).cairnOwned},
		"CAIRN.DROP":  {-2, nil, (*session).cairnDrop},
		"CAIRN.FLUSH": {1, nil, (*session).cairnFlush},

		"PUNSUBSCRIBE":    {-1, nil, unsubscribe(byPattern)},
		"CAIRN.SET":       {-3, only(2), (*session).set},
		"CAIRN.STAGED":    {3, nil, (*session).cairnStaged},
		"CAIRN.VERSION":   {2, nil, (*session).cairnVersion},
		"CAIRN.SESSION":   {-1, nil, (*session).cairnSession},
		"CAIRN.BARRIER":   {1, nil, (*session).cairnBarrier},
		"CAIRN.EXPLAIN":   {2, nil, (*session).cairnExplain},
		"CAIRN.NAMESPACE": {2, nil, (*session).cairnNamespace},
	}
}

func (s *session) quit(_ context.Context, w *resp.Writer, _ [][]byte) {
	w.Status("OK")
	w.CloseAfterReply()
}

func (s *session) reset(_ context.Context, w *resp.Writer, _ [][]byte) {
	s.namespace, s.nowhere, s.name = s.n.cfg.Namespaces[0], false, ""
	s.n.pubsub.removeAll(&s.subscriber)
	s.sequence.Store(0)
	w.SetRESP3(false)
	w.Status("RESET")
}
