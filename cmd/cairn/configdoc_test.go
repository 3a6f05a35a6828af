package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

var update = flag.Bool("update", false, "write docs/configuration.md anew")

const configDoc = "../../docs/configuration.md"

// TestConfigurationDoc compares docs/configuration.md with the flags there are.
func TestConfigurationDoc(t *testing.T) {
	want := configurationDoc(t)
	if *update {
		if err := os.WriteFile(configDoc, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(configDoc)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("docs/configuration.md does not say what the flags say: go test ./cmd/cairn -run ConfigurationDoc -update")
	}
}

const configIntro = `# Configuration

Every flag of every command is also an environment variable and a key of the YAML file that ` + "`--config` (`CAIRN_CONFIG`)" + ` names. Flags win
over the environment, the environment over the file. In the file, a key at the top is for every command that has the flag; a key below the
name of a command is for that command. A key that is no flag is an error.

` + "```yaml" + `
log-level: info
nats: [nats://10.0.0.1:4222, nats://10.0.0.2:4222, nats://10.0.0.3:4222]
node:
  id: n1
  listen: 0.0.0.0:7070
  advertise: 10.0.0.11:7070
  data: /var/lib/cairn
  host: 64GiB
  disk: 2TiB
  classes: [64KiB, 512KiB, 2MiB, 5MiB]
  namespaces: ["default:write-back", "checkpoints:write-through"]
` + "```" + `

Sizes are written 4096, 64KiB, 1.5GiB; durations 500ms, 15s, 2m. Slot sizes (` + "`classes`" + `) deserve thought: a block takes the smallest slot that it
fits, so give the exact sizes of the blocks that your models make. Sizes below are bytes as the program prints them.

This page is made from the program's own flags by ` + "`go test ./cmd/cairn -run ConfigurationDoc -update`" + `.
`

func configurationDoc(t *testing.T) string {
	var c cli
	parser, err := kong.New(&c, kong.Name("cairn"), variables(), kong.DefaultEnvars("CAIRN"), kong.ExplicitGroups(groups), kong.Bind(&app{}))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString(configIntro)
	b.WriteString("\n## All commands\n\n" + flagTable(parser.Model.Flags))
	commandTables(&b, "cairn", parser.Model.Node)
	return b.String()
}

func commandTables(b *strings.Builder, path string, of *kong.Node) {
	for _, n := range of.Children {
		name := path + " " + n.Name
		flags, more := n.Flags, ""
		if other := commandNamed(of, sameAs[n.Name]); other != nil { // whose flags it has as well
			known := flagNames(other)
			flags = slices.DeleteFunc(slices.Clone(flags), func(f *kong.Flag) bool { return slices.Contains(known, f.Name) })
			more = fmt.Sprintf(" Besides these it has the flags of cairn %s, and the same part of the file.", other.Name)
		}
		if len(flags) > 0 && !n.Hidden {
			fmt.Fprintf(b, "\n## %s\n\n%s%s\n\n%s", name, n.Help, more, flagTable(flags))
		}
		commandTables(b, name, n)
	}
}

func flagTable(flags []*kong.Flag) string {
	var b strings.Builder
	b.WriteString("| flag | environment | default | |\n|---|---|---|---|\n")
	for _, f := range flags {
		if f.Hidden || f.Name == "help" {
			continue
		}
		value := "–"
		if f.HasDefault && f.Default != "" {
			value = "`" + f.Default + "`"
		}
		env := "–"
		if len(f.Envs) > 0 {
			env = "`" + strings.Join(f.Envs, " ") + "`"
		}
		help := strings.ReplaceAll(f.Help, "${enum}", strings.TrimPrefix(f.Enum, ","))
		fmt.Fprintf(&b, "| `--%s` | %s | %s | %s |\n", f.Name, env, value, strings.ReplaceAll(help, "|", "\\|"))
	}
	return b.String()
}
