package doctor

// Look makes all checks of the machine and returns their results by group, in the
// order of the groups; results given besides take their place in their group, before
// those found here. Progress is told what is about to take a while.
func Look(m Machine, p Plan, progress func(string), more ...Result) []Result {
	began := m.clocks()
	found := map[string][]Result{
		Memory:  memoryChecks(m, p),
		Disk:    diskChecks(m, p, progress),
		Network: networkChecks(m, p),
		System:  systemChecks(m, p),
	}
	found[System] = append(found[System], steady(began, m.clocks()))
	var list []Result
	for _, group := range []string{GPU, Memory, Disk, Network, System} {
		for _, r := range more {
			if r.Group == group {
				list = append(list, r)
			}
		}
		for _, r := range found[group] {
			r.Group = group
			list = append(list, r)
		}
	}
	return list
}
