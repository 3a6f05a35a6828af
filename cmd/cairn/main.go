// Command cairn is a distributed block cache for LLM inference: its nodes, its
// router, an embedded NATS server, and the tools to look at and measure them.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
	kongcompletion "github.com/jotaen/kong-completion"
)

// cli is the command line; each command has a file of its own.
type cli struct {
	Config    string `help:"YAML file with values of flags; see docs/configuration.md." placeholder:"FILE" type:"path"`
	JSON      bool   `help:"Answer in JSON." name:"json"`
	LogLevel  string `help:"Least severity that is logged: ${enum}; auto is info for servers, else warn." enum:"auto,debug,info,warn,error" default:"auto"`
	LogFormat string `help:"Format of the log: ${enum}." enum:"text,json" default:"text"`

	Demo     demoCmd     `cmd:"" help:"Start a cluster, replay a real trace through it, write a report." group:"cluster"`
	Up       upCmd       `cmd:"" help:"Start a cluster on this machine and keep it running." group:"cluster"`
	Node     nodeCmd     `cmd:"" help:"Run one node." group:"cluster"`
	Router   routerCmd   `cmd:"" help:"Run a router." group:"cluster"`
	NATS     natsCmd     `cmd:"" name:"nats" help:"Run the embedded NATS server alone." group:"cluster"`
	Get      getCmd      `cmd:"" help:"Read a block." group:"blocks"`
	Put      putCmd      `cmd:"" help:"Store a block." group:"blocks"`
	Rm       rmCmd       `cmd:"" help:"Delete a block." group:"blocks"`
	Ls       lsCmd       `cmd:"" help:"List names and blocks." group:"blocks"`
	Cas      casCmd      `cmd:"" help:"Change a name that has a certain version." group:"blocks"`
	Watch    watchCmd    `cmd:"" help:"Follow the changes of a name." group:"blocks"`
	Clear    clearCmd    `cmd:"" help:"Delete all names of a namespace." group:"blocks"`
	Barrier  barrierCmd  `cmd:"" help:"Wait until all names that were written are durable." group:"blocks"`
	Explain  explainCmd  `cmd:"" help:"Say where a block is, or why a request is routed where it is." group:"look"`
	Route    routeCmd    `cmd:"" help:"Ask for the best node for a request." group:"look"`
	Status   statusCmd   `cmd:"" aliases:"stat" help:"Show the cluster." group:"look"`
	Drain    drainCmd    `cmd:"" help:"Have a node hand over what only it has, so that it may be stopped; routers send it nothing new." group:"cluster"`
	Log      logCmd      `cmd:"" help:"Show the changes of a name in the coherence log." group:"look"`
	Decode   decodeCmd   `cmd:"" help:"Show a message of the coherence log as JSON." group:"look"`
	Health   healthCmd   `cmd:"" help:"Exit with 0 if a server answers." group:"look"`
	Replay   replayCmd   `cmd:"" help:"Replay a trace against a running cluster." group:"measure"`
	Bench    benchCmd    `cmd:"" help:"Measure reads and writes of blocks." group:"measure"`
	Simulate simulateCmd `cmd:"" help:"Compare ways of routing and of eviction on a trace, in virtual time." group:"measure"`
	Doctor   doctorCmd   `cmd:"" help:"Check this machine for a node, with advice." group:"look"`
	Version  versionCmd  `cmd:"" help:"Print the version."`

	Completion kongcompletion.Completion `cmd:"" help:"Print how to set up completion of commands in a shell."`
}

const description = `Cairn is a distributed block cache for LLM inference clusters.

Every flag can also be set in the environment, as CAIRN_ and its name in capitals
with _ for -, and in the YAML file that --config names. Flags win over the
environment, the environment over the file.

Exit codes: 0 success, 1 failure, 2 wrong usage or configuration, 3 not found,
4 unavailable (nothing answers, or not now), 5 conflict, 6 wrong bytes were read,
7 outcome unknown (a change may have been made, or may be made yet).`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:]))
}

func run(ctx context.Context, args []string) int {
	var c cli
	if len(args) > 0 && args[0] == "help" { // cairn help put, as other programs have it
		args = append(args[1:len(args):len(args)], "--help")
	}
	file := &configFile{args: args, env: os.Getenv("CAIRN_CONFIG")}
	if err := file.read(); err != nil {
		return complain(usageError{err})
	}
	app := &app{ctx: ctx, out: os.Stdout, err: os.Stderr, env: os.Environ()}
	parser, err := kong.New(&c, kong.Name("cairn"), kong.Description(description),
		variables(), kong.DefaultEnvars("CAIRN"), kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.ExplicitGroups(groups), kong.Resolvers(file), kong.Bind(app))
	if err != nil {
		return complain(err)
	}
	kongcompletion.Register(parser)
	kctx, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "cairn: %v\nTry: cairn --help, or cairn COMMAND --help\n", err)
		return exitUsage
	}
	app.json = c.JSON
	app.log = newLogger(os.Stderr, logLevel(c.LogLevel, kctx.Command()), c.LogFormat)
	return complain(kctx.Run(app))
}

// complain shows an error, if there is one, and returns its exit code.
func complain(err error) int {
	if err != nil && !errors.Is(err, errSilent) {
		fmt.Fprintln(os.Stderr, "cairn:", strings.TrimPrefix(err.Error(), "cairn: ")+advice(err))
	}
	return exitCode(err)
}
