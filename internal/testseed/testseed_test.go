package testseed

import "testing"

func TestOf(t *testing.T) {
	t.Setenv(Env, "")
	if first, second := Of(t), Of(t); first != second {
		t.Errorf("seeds %d and %d, want the same", first, second)
	}
	t.Setenv(Env, "7")
	if seed := Of(t); seed != 7 {
		t.Errorf("seed %d, want 7", seed)
	}
	t.Setenv(Env, "random")
	if first, second := Of(t), Of(t); first == second {
		t.Errorf("seed %d twice, want others", first)
	}
	if _, err := choose("x"); err == nil {
		t.Error("x is a seed")
	}
}
