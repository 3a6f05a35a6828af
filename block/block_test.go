package block

import (
	"encoding/json"
	"errors"
	"slices"
	"testing"
)

func TestKeyRoundTrip(t *testing.T) {
	var hash [HashSize]byte
	for i := range hash {
		hash[i] = byte(0xf0 + i)
	}
	for _, position := range []int{0, 1, 0x010203, MaxPosition} {
		k, err := NewKey(position, hash)
		if err != nil {
			t.Fatal(err)
		}
		if k.Position() != position || k.Named() {
			t.Errorf("position %d came back as %d, named %v", position, k.Position(), k.Named())
		}
		back, err := ParseKey(k.String())
		if err != nil || back != k {
			t.Errorf("ParseKey(%s) = %s, %v", k, back, err)
		}
		text, err := json.Marshal(map[Key]Key{k: k})
		if err != nil {
			t.Fatal(err)
		}
		var m map[Key]Key
		if err := json.Unmarshal(text, &m); err != nil || m[k] != k {
			t.Errorf("JSON %s came back as %v, %v", text, m, err)
		}
	}
}

func TestKeyPositionOverflow(t *testing.T) {
	for _, position := range []int{-1, NamedPosition, 1 << 30} {
		if _, err := NewKey(position, [HashSize]byte{}); !errors.Is(err, ErrPosition) {
			t.Errorf("NewKey(%d) = %v, want ErrPosition", position, err)
		}
	}
}

func TestParseKeyRejects(t *testing.T) {
	for _, s := range []string{"", "00", "zz000000000000000000000000000000", "000000000000000000000000000000000"} {
		if _, err := ParseKey(s); !errors.Is(err, ErrSyntax) {
			t.Errorf("ParseKey(%q) = %v, want ErrSyntax", s, err)
		}
	}
}

func TestKeyOrderIsSequenceOrder(t *testing.T) {
	first, _ := NewKey(1, [HashSize]byte{0xff})
	second, _ := NewKey(2, [HashSize]byte{0x00})
	if first.Compare(second) >= 0 {
		t.Error("a later position must sort after an earlier one")
	}
}

func TestNamedKeysDiffer(t *testing.T) {
	seen := map[Key]string{}
	for _, c := range []struct {
		namespace, name string
		version         uint64
	}{{"", "a", 0}, {"", "a", 1}, {"", "a", 2}, {"a", "", 1}, {"a", "b", 1}, {"ab", "", 1}, {"", "ab", 1}} {
		k := NamedKey(c.namespace, []byte(c.name), c.version)
		if !k.Named() {
			t.Errorf("%v: not a named key", c)
		}
		if other, ok := seen[k]; ok {
			t.Errorf("%v shares its key with %s", c, other)
		}
		seen[k] = c.namespace + "/" + c.name
	}
}

// The reference's test_tier_priority, test_tier_mask_operations,
// test_tier_mask_fastest and test_tier_mask_union.
func TestTierPriority(t *testing.T) {
	if VRAM.Priority() != 0 || Host.Priority() != 1 || Disk.Priority() != 2 {
		t.Errorf("priorities are %d, %d, %d", VRAM.Priority(), Host.Priority(), Disk.Priority())
	}
}

func TestTierMask(t *testing.T) {
	var m TierMask
	if m.Any() || m.Count() != 0 {
		t.Error("the zero mask must be empty")
	}
	if _, ok := m.Fastest(); ok {
		t.Error("the empty mask has no fastest tier")
	}
	for _, step := range []struct {
		add     Tier
		fastest Tier
		list    string
	}{{Disk, Disk, "disk"}, {Host, Host, "host+disk"}, {VRAM, VRAM, "vram+host+disk"}} {
		m = m.With(step.add)
		if f, ok := m.Fastest(); !ok || f != step.fastest {
			t.Errorf("%s: fastest is %s, want %s", m, f, step.fastest)
		}
		if m.String() != step.list {
			t.Errorf("got %s, want %s", m, step.list)
		}
	}
	m = m.Without(Host)
	if m.Has(Host) || m.Count() != 2 {
		t.Errorf("after removal: %s", m)
	}
	if got := slices.Collect(m.All()); !slices.Equal(got, []Tier{VRAM, Disk}) {
		t.Errorf("members are %v", got)
	}
	if u := MaskOf(Host).Union(MaskOf(Disk)); !u.Has(Host) || !u.Has(Disk) || u.Has(VRAM) {
		t.Errorf("union is %s", u)
	}
}

func TestParseTier(t *testing.T) {
	for tier := range Tier(Tiers) {
		if got, err := ParseTier(tier.String()); err != nil || got != tier {
			t.Errorf("ParseTier(%s) = %s, %v", tier, got, err)
		}
	}
	if _, err := ParseTier("tape"); err == nil {
		t.Error("ParseTier must refuse an unknown tier")
	}
}

func TestDescriptorMatches(t *testing.T) {
	p := []byte("the attention state of sixteen tokens")
	d := Describe(Key{1}, Key{}, p)
	if !d.Matches(p) {
		t.Error("a descriptor must match its own bytes")
	}
	q := slices.Clone(p)
	q[3] ^= 1
	if d.Matches(q) || d.Matches(p[:len(p)-1]) {
		t.Error("a flipped bit or a missing byte must not match")
	}
}
