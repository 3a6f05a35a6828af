package tier

import (
	"context"
	"errors"

	"cairn/block"
)

// Item is one object of a batch.
type Item struct {
	// Descriptor is of the object to be put. To get one, its Key says which; the rest is
	// filled in.
	block.Descriptor
	// Bytes are what is put, or where the object goes to. They are the caller's, and
	// only used during the call.
	Bytes []byte
	// Pin asks for one pin on an object that is put, as by PinExact, from the moment that
	// anybody can find it; also on one that is there already.
	Pin bool
	// Object is what PinExact would have said of that pin; 0: there is none.
	Object uint64
	// Quiet says that getting the object is no use of it: when it would be evicted stays as
	// it was, as far as the store can do that.
	Quiet bool
}

// Batcher is a Store that moves many objects at once for less than one after another.
// Each object of a batch succeeds or fails by itself, as far as the store can tell them
// apart; one that failed is not there.
//
// A batch waits for its turn where too many are under way. A ctx that ends before that
// leaves nothing done; a copy that is under way is not cut short.
type Batcher interface {
	Store
	// PutMany is Put of each item. errs has as many elements as items; errs[i] is
	// ErrExists with a pin, if one was asked for. evicted is as for Put.
	PutMany(ctx context.Context, items []Item) (evicted []block.Key, errs []error)
	// GetMany is Get of each item into its Bytes.
	GetMany(ctx context.Context, items []Item) (errs []error)
}

// PutMany is s.PutMany, or of a store that knows no batches one Put after another. Where
// pins are asked for, such a store must be a Pinner.
func PutMany(ctx context.Context, s Store, items []Item) (evicted []block.Key, errs []error) {
	if b, ok := s.(Batcher); ok {
		return b.PutMany(ctx, items)
	}
	errs = make([]error, len(items))
	for i := range items {
		it := &items[i]
		var gone []block.Key
		gone, errs[i] = s.Put(ctx, it.Descriptor, it.Bytes)
		evicted = append(evicted, gone...)
		if !it.Pin || errs[i] != nil && !errors.Is(errs[i], ErrExists) {
			continue
		}
		object, err := s.(Pinner).PinExact(it.Key)
		if err != nil {
			errs[i] = err // it was evicted at once
			continue
		}
		it.Object = object
	}
	return evicted, errs
}

// GetMany is s.GetMany, or of a store that knows no batches one Get after another.
func GetMany(ctx context.Context, s Store, items []Item) (errs []error) {
	if b, ok := s.(Batcher); ok {
		return b.GetMany(ctx, items)
	}
	errs = make([]error, len(items))
	for i := range items {
		it := &items[i]
		it.Descriptor, errs[i] = s.Get(ctx, it.Key, it.Bytes)
	}
	return errs
}

// Flights is what a store has under way in batches.
type Flights struct {
	Batches, Bytes int64 // at present
	// Waits counts batches that had to wait for their turn, since the store was opened.
	Waits int64
}

// Flyer is a Store that tells what it has under way.
type Flyer interface{ Flights() Flights }

// Foreseer is a Store that tells what it would evict next, without doing so.
type Foreseer interface {
	// Candidates are the objects that would go next, most of them at most, the first
	// ones first. It is an estimate, and changes nothing about what goes.
	Candidates(most int) []block.Descriptor
	// Yield evicts an object now, if nothing keeps it, and reports whether it did.
	Yield(key block.Key) bool
}

// Describer is a Store that says, for people, what it stores on: "NVIDIA H200, GPU 0".
type Describer interface{ Describe() string }
