package node

// globMatch tells whether s matches a pattern of Redis's KEYS and SCAN: * any
// run, ? any byte, [a-z] and [^a-z] classes, \ quotes the next byte. It takes
// time proportional to len(pattern) × len(s) at worst.
func globMatch(pattern, s string) bool {
	star, mark := -1, 0 // the last * and where in s its run ends so far
	p, i := 0, 0
	for i < len(s) {
		if p < len(pattern) && pattern[p] == '*' {
			star, mark = p, i
			p++
			continue
		}
		if p < len(pattern) {
			if ok, next := matchOne(pattern, p, s[i]); ok {
				p = next
				i++
				continue
			}
		}
		if star < 0 {
			return false
		}
		mark++
		p, i = star+1, mark
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// matchOne matches the element of pattern at p with one byte, and returns where
// the next element begins.
func matchOne(pattern string, p int, c byte) (ok bool, next int) {
	switch pattern[p] {
	case '?':
		return true, p + 1
	case '\\':
		if p+1 < len(pattern) {
			p++
		}
		return pattern[p] == c, p + 1
	case '[':
		return matchClass(pattern, p+1, c)
	default:
		return pattern[p] == c, p + 1
	}
}

// matchClass matches a class whose elements begin at p. As in Redis a range may
// end in any byte, even the closing bracket, and a class may end with the
// pattern.
func matchClass(pattern string, p int, c byte) (ok bool, next int) {
	negate := p < len(pattern) && pattern[p] == '^'
	if negate {
		p++
	}
	in := false
	for p < len(pattern) && pattern[p] != ']' {
		low, high := pattern[p], pattern[p]
		switch {
		case pattern[p] == '\\' && p+1 < len(pattern):
			p++
			low, high = pattern[p], pattern[p]
		case p+2 < len(pattern) && pattern[p+1] == '-':
			high = pattern[p+2]
			p += 2
		}
		if low > high {
			low, high = high, low
		}
		in = in || low <= c && c <= high
		p++
	}
	if p < len(pattern) {
		p++ // the closing bracket
	}
	return in != negate, p
}
