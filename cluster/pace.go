package cluster

import "time"

// quietFor is how long a failure that repeats itself stays out of the log.
const quietFor = 10 * time.Second

// pace keeps a loop that fails again and again from filling the log. The zero
// value is ready; it is for one goroutine.
type pace struct{ said time.Time }

// due tells whether to log now.
func (p *pace) due() bool {
	now := time.Now()
	if !p.said.IsZero() && now.Sub(p.said) < quietFor {
		return false
	}
	p.said = now
	return true
}
