package cluster

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// objectChunk is the size of a message of an object, and objectWindow how many are on
	// their way to the server, or asked of it, at once: what it has to hold of a large
	// object. The client library would send all of it, or ask for 500.
	objectChunk  = 128 << 10
	objectWindow = 8
	// followBytes is how much of a stream a reader asks for at once.
	followBytes = 4 << 20

	objectSubjects = "$O."
)

func objectChunks(bucket, id string) string { return objectSubjects + bucket + ".C." + id }

// objectNames are the subjects of what is known about objects, each of one of them.
func objectNames(bucket string) string { return objectSubjects + bucket + ".M." }

// listObjects describes the objects of a bucket whose names begin with prefix, by name. A
// bucket that is not there is jetstream.ErrBucketNotFound.
//
// ObjectStore.List would say the same, but it waits until it has seen the last description
// that was there when it began, and if just that one is replaced meanwhile it waits for ever.
func listObjects(ctx context.Context, js jetstream.JetStream, bucket, prefix string) (list []*jetstream.ObjectInfo, err error) {
	stream, err := js.Stream(ctx, objStreamPrefix+bucket)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, fmt.Errorf("%w: %w", jetstream.ErrBucketNotFound, err)
	}
	if err != nil {
		return nil, err
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(objectNames(bucket)+">"))
	if err != nil {
		return nil, err
	}
	for subject := range info.State.Subjects {
		name, err := base64.URLEncoding.DecodeString(strings.TrimPrefix(subject, objectNames(bucket)))
		if err != nil || !strings.HasPrefix(string(name), prefix) {
			continue
		}
		m, err := stream.GetLastMsgForSubject(ctx, subject)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue // it was deleted meanwhile
		}
		if err != nil {
			return nil, err
		}
		o := new(jetstream.ObjectInfo)
		if json.Unmarshal(m.Data, o) == nil && !o.Deleted {
			o.ModTime = m.Time
			list = append(list, o)
		}
	}
	slices.SortFunc(list, func(a, b *jetstream.ObjectInfo) int { return cmp.Compare(a.Name, b.Name) })
	return list, nil
}

// unhurried is called after each piece of an object, and may give way to others; nil does not.
type unhurried func()

func (u unhurried) pause() {
	if u != nil {
		u()
	}
}

// putObject is ObjectStore.Put, without more of data on its way than objectWindow. It
// keeps nothing of data.
func putObject(ctx context.Context, conn *Conn, store jetstream.ObjectStore, bucket string, meta jetstream.ObjectMeta, data []byte, pace unhurried) (_ *jetstream.ObjectInfo, err error) {
	old, err := store.GetInfo(ctx, meta.Name, jetstream.GetObjectInfoShowDeleted())
	if err != nil && !errors.Is(err, jetstream.ErrObjectNotFound) {
		return nil, err
	}
	meta.Opts = &jetstream.ObjectMetaOptions{ChunkSize: objectChunk}
	sum := sha256.New()
	_, _ = sum.Write(data) // cannot fail
	info := &jetstream.ObjectInfo{ObjectMeta: meta, Bucket: bucket, NUID: rand.Text(), Size: uint64(len(data)),
		Chunks: uint32((len(data) + objectChunk - 1) / objectChunk), Digest: jetstream.GetObjectDigestValue(sum)}
	purge := func(id string) error {
		stream, err := conn.JS.Stream(ctx, objStreamPrefix+bucket)
		if err == nil {
			err = stream.Purge(ctx, jetstream.WithPurgeSubject(objectChunks(bucket, id)))
		}
		return err
	}
	if err := putChunks(ctx, conn, objectChunks(bucket, info.NUID), data, pace); err != nil {
		return nil, errors.Join(err, purge(info.NUID))
	}
	m := nats.NewMsg(objectNames(bucket) + base64.URLEncoding.EncodeToString([]byte(meta.Name)))
	m.Header.Set(jetstream.MsgRollup, jetstream.MsgRollupSubject)
	if m.Data, err = json.Marshal(info); err != nil {
		return nil, errors.Join(err, purge(info.NUID))
	}
	if _, err := conn.JS.PublishMsg(ctx, m); err != nil {
		return nil, err // it may be there after all
	}
	info.ModTime = time.Now().UTC()
	if old != nil && !old.Deleted {
		_ = purge(old.NUID) // costs room only
	}
	return info, nil
}

// putChunks publishes data in pieces, and returns when the stream has all of them.
func putChunks(ctx context.Context, conn *Conn, subject string, data []byte, pace unhurried) error {
	var mu sync.Mutex
	var failed error
	js, err := jetstream.New(conn.NC, jetstream.WithPublishAsyncMaxPending(objectWindow), jetstream.WithPublishAsyncTimeout(objectWait),
		jetstream.WithPublishAsyncErrHandler(func(_ jetstream.JetStream, _ *nats.Msg, err error) {
			mu.Lock()
			defer mu.Unlock()
			failed = errors.Join(failed, err)
		}))
	if err != nil {
		return err
	}
	defer js.CleanupPublisher()
	for chunk := range slices.Chunk(data, objectChunk) {
		if _, err := js.PublishMsgAsync(&nats.Msg{Subject: subject, Data: chunk}, jetstream.WithStallWait(objectWait)); err != nil {
			return err
		}
		if pace.pause(); ctx.Err() != nil {
			return ctx.Err()
		}
	}
	select {
	case <-js.PublishAsyncComplete():
	case <-ctx.Done():
		return ctx.Err()
	}
	mu.Lock()
	defer mu.Unlock()
	return failed
}

// objectWait is how long the server may take for a few messages of an object.
const objectWait = 10 * time.Second

// sameObject reads an object back, and tells whether it is data.
func sameObject(ctx context.Context, conn *Conn, info *jetstream.ObjectInfo, data []byte, pace unhurried) (bool, error) {
	same := info.Size == uint64(len(data))
	err := readChunks(ctx, conn.JS, info, func(chunk []byte) {
		same = same && bytes.HasPrefix(data, chunk)
		data = data[min(len(chunk), len(data)):]
		pace.pause()
	})
	return same && len(data) == 0, err
}

// readChunks calls each for every piece of an object, in order. The pieces are each's.
func readChunks(ctx context.Context, js jetstream.JetStream, info *jetstream.ObjectInfo, each func(chunk []byte)) error {
	cons, err := js.OrderedConsumer(ctx, objStreamPrefix+info.Bucket, jetstream.OrderedConsumerConfig{
		FilterSubjects:    []string{objectChunks(info.Bucket, info.NUID)},
		DeliverPolicy:     jetstream.DeliverAllPolicy,
		InactiveThreshold: consumerIdle,
		MaxResetAttempts:  1,
	})
	if err != nil {
		return err
	}
	// Left alone it goes after consumerIdle; a reader of many objects would come to the server's
	// limit of consumers before.
	defer func() {
		done, cancel := context.WithTimeout(context.WithoutCancel(ctx), objectWait)
		defer cancel()
		_ = js.DeleteConsumer(done, objStreamPrefix+info.Bucket, cons.CachedInfo().Name)
	}()
	if have := cons.CachedInfo().NumPending; have != uint64(info.Chunks) {
		return fmt.Errorf("%w: %d of %d chunks are there: it has been replaced", ErrPlacement, have, info.Chunks)
	}
	it, err := cons.Messages(jetstream.PullExpiry(pullExpiry), jetstream.PullHeartbeat(pullHeartbeat), jetstream.PullMaxMessages(objectWindow))
	if err != nil {
		return err
	}
	defer it.Stop()
	for range info.Chunks {
		msg, err := it.Next(jetstream.NextContext(ctx))
		if err != nil {
			return err
		}
		each(msg.Data())
	}
	return nil
}
