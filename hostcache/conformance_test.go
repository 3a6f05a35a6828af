package hostcache

import (
	"testing"

	"cairn/tier"
	"cairn/tier/tiertest"
)

func TestConformance(t *testing.T) {
	for name, cfg := range map[string]Config{
		"default": {},
		// Few slabs, which no class divides evenly.
		"awkward": {SlabSize: 31 * PageSize},
		"hazard":  {Eviction: EvictHazard},
	} {
		t.Run(name, func(t *testing.T) {
			tiertest.Run(t, tiertest.Config{
				Open: func(t testing.TB, o tiertest.Options) tier.Store {
					cfg.Capacity = o.Capacity
					c, err := Open(cfg)
					if err != nil {
						t.Fatal(err)
					}
					return c
				},
				MaxObject: largest(t, cfg),
			})
		})
	}
}

// largest is the largest class of a cache of the suite's capacity.
func largest(t *testing.T, cfg Config) int {
	cfg.Capacity = tiertest.DefaultCapacity
	c, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.classes[len(c.classes)-1].size
}
