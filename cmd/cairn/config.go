package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/goccy/go-yaml"
)

// configFile gives flags their values from a YAML file. Its keys are names of
// flags; keys below the name of a command are for that command alone:
//
//	log-level: warn
//	node:
//	  id: n1
//	  host: 16GiB
//
// A key that is no flag is an error, so that a typo cannot go unnoticed.
type configFile struct {
	args []string
	env  string

	path   string
	values map[string]any
}

// read reads the file, if one is named. It comes before the parser runs: kong
// resolves the flags before it has resolvers validated.
func (f *configFile) read() error {
	if f.path = f.find(); f.path == "" {
		return nil
	}
	text, err := os.ReadFile(f.path)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	if err := yaml.Unmarshal(text, &f.values); err != nil {
		return fmt.Errorf("configuration %s: %s", f.path, strings.TrimRight(yaml.FormatError(err, false, true), "\n"))
	}
	return nil
}

// Validate implements kong.Resolver: it checks the keys.
func (f *configFile) Validate(app *kong.Application) error {
	var errs []error
	global := flagNames(app.Node)
	for key, value := range f.values {
		command := commandNamed(app.Node, key)
		below, isMap := value.(map[string]any)
		switch {
		case command != nil && isMap:
			known := slices.Concat(global, anyFlag(command, flagNames(command)))
			for key := range below {
				if !slices.Contains(known, key) {
					errs = append(errs, unknownKey(f.path, command.Name+"."+key, key, known))
				}
			}
		case !slices.Contains(anyFlag(app.Node, global), key):
			errs = append(errs, unknownKey(f.path, key, key, anyFlag(app.Node, global)))
		case isMap:
			errs = append(errs, fmt.Errorf("configuration %s: %s: want a value, not a map", f.path, key))
		}
	}
	return errors.Join(errs...)
}

// find looks for --config itself: values are needed before the flags are parsed.
func (f *configFile) find() string {
	for i, a := range f.args {
		if path, ok := strings.CutPrefix(a, "--config="); ok {
			return path
		}
		if a == "--config" && i+1 < len(f.args) {
			return f.args[i+1]
		}
	}
	return f.env
}

func unknownKey(path, full, key string, known []string) error {
	hint := ""
	if best := nearest(key, known); best != "" {
		hint = fmt.Sprintf("; did you mean %q?", best)
	}
	return fmt.Errorf("configuration %s: unknown key %q%s", path, full, hint)
}

// Resolve implements kong.Resolver. What the environment says stands: kong has
// taken it over already, and would prefer a resolver's answer.
func (f *configFile) Resolve(_ *kong.Context, parent *kong.Path, flag *kong.Flag) (any, error) {
	inEnv := slices.ContainsFunc(flag.Envs, func(name string) bool { _, set := os.LookupEnv(name); return set })
	if f.values == nil || flag.Name == "config" || inEnv {
		return nil, nil
	}
	value, ok := f.values[flag.Name]
	for node := parent.Node(); node != nil; node = node.Parent { // a command, or the one that it is part of
		if v, there := f.below(node.Name, flag.Name); there {
			value, ok = v, true
			break
		}
	}
	if !ok {
		return nil, nil
	}
	return flagText(value), nil
}

// below is what the file says of a flag below the name of a command. The doctor looks
// at the machine for a node, so what is said of that counts for it as well.
func (f *configFile) below(command, flag string) (value any, there bool) {
	for _, name := range []string{command, sameAs[command]} {
		if below, isMap := f.values[name].(map[string]any); isMap && !there {
			value, there = below[flag]
		}
	}
	return value, there
}

// sameAs names the command whose part of the file another one uses as well.
var sameAs = map[string]string{"doctor": "node"}

// flagText is a value of the file as a flag takes it: a list with commas, a map
// as KEY=VALUE;KEY=VALUE.
func flagText(value any) string {
	switch v := value.(type) {
	case []any:
		words := make([]string, len(v))
		for i, e := range v {
			words[i] = fmt.Sprint(e)
		}
		return strings.Join(words, ",")
	case map[string]any:
		var pairs []string
		for _, key := range slices.Sorted(maps.Keys(v)) {
			pairs = append(pairs, fmt.Sprintf("%s=%v", key, v[key]))
		}
		return strings.Join(pairs, ";")
	}
	return fmt.Sprint(value)
}

func flagNames(n *kong.Node) []string {
	var names []string
	for _, f := range n.Flags {
		names = append(names, f.Name)
	}
	return names
}

func commandNamed(n *kong.Node, name string) *kong.Node {
	for _, c := range n.Children {
		if c.Name == name {
			return c
		}
	}
	return nil
}

func anyFlag(n *kong.Node, names []string) []string {
	for _, c := range n.Children {
		names = anyFlag(c, append(names, flagNames(c)...))
	}
	return names
}

// nearest is the known word at most two edits away, or "".
func nearest(word string, known []string) string {
	best, least := "", 3
	for _, k := range known {
		if d := editDistance(word, k); d < least {
			best, least = k, d
		}
	}
	return best
}

// editDistance is the Levenshtein distance.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			diagonal, row[j] = row[j], min(row[j]+1, row[j-1]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
