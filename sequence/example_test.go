package sequence_test

import (
	"fmt"

	"cairn/sequence"
)

// A prompt of five blocks arrives. Of an earlier prompt the device still has the
// first two, and the host the other three: these are brought to the device.
func Example_onboarding() {
	salt, err := sequence.Namespace{Model: "llama-3.1-8b", BlockSize: 4}.Salt()
	if err != nil {
		panic(err)
	}
	tokens, err := sequence.New(4, salt, nil)
	if err != nil {
		panic(err)
	}
	completed, err := tokens.Extend(make([]uint32, 22))
	if err != nil {
		panic(err)
	}
	fmt.Println("whole blocks:", completed, "partial:", len(tokens.Partial()))
	keys := tokens.Keys()

	device, err := sequence.NewAssignments[sequence.Bare](0)
	if err != nil {
		panic(err)
	}
	hits := []sequence.Block[sequence.Bare]{{ID: 40, Key: keys[0]}, {ID: 41, Key: keys[1]}}
	if _, err := device.ExtendAssigned(hits); err != nil {
		panic(err)
	}
	host, err := sequence.NewAssignments[sequence.Bare](2)
	if err != nil {
		panic(err)
	}
	hits = hits[:0]
	for i, key := range keys[2:] {
		hits = append(hits, sequence.Block[sequence.Bare]{ID: sequence.BlockID(900 + i), Key: key})
	}
	if _, err := host.ExtendAssigned(hits); err != nil {
		panic(err)
	}

	// The engine gives four slots for the rest of the prompt.
	if err := device.ExtendBlockIDs([]sequence.BlockID{52, 53, 54, 55}); err != nil {
		panic(err)
	}
	for _, p := range sequence.ZipAssignedPending(host, device) {
		fmt.Printf("copy block %d from host slot %d to device slot %d\n", p.Position, p.Source, p.Target)
	}
	staged, err := device.StagePending(keys)
	if err != nil {
		panic(err)
	}
	fmt.Println("staged:", staged.Len())
	// Here the bytes are copied; TakeStaged instead gives up.
	fmt.Println("committed:", device.CommitStaged(), "assigned now:", device.AssignedPositions())
	for id := range device.PendingIDs() {
		fmt.Println("waits for the next block: slot", id)
	}

	// Output:
	// whole blocks: [0,5) partial: 2
	// copy block 2 from host slot 900 to device slot 52
	// copy block 3 from host slot 901 to device slot 53
	// copy block 4 from host slot 902 to device slot 54
	// staged: 3
	// committed: [2,5) assigned now: [0,5)
	// waits for the next block: slot 55
}
