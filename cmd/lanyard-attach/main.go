// Lanyard-attach carries out one stage of the OCI hook, or one command of a plugin, in its own
// process. lanyard-hook and the plugins execute it if no service answers, with the container's state
// or the plugin's input on stdin. It is a program of its own because "lanyard" links much that an
// attach does not need, and takes longer to start.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/lanyard-net/lanyard/hook/oci"
	"github.com/lanyard-net/lanyard/internal/stage"
	"github.com/lanyard-net/lanyard/internal/wiring"
)

func main() {
	o, args, err := parse(os.Args[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "lanyard: wrong usage: %v\n", err)
		os.Exit(2)
	}
	if p, ok := stage.PluginOf(o, args); ok {
		os.Exit(p.Run(context.Background()))
	}
	o.Stage = args[0]
	exit(stage.Run(context.Background(), o, exit))
}

// exit ends the process. A runtime shows the line to its user.
func exit(err error) {
	if err == nil {
		os.Exit(0)
	}
	fmt.Fprintln(os.Stderr, "lanyard: "+oci.Line(err))
	os.Exit(1)
}

// parse returns the options, and the arguments: a stage, or what stage.PluginOf takes.
func parse(args []string) (o stage.Options, rest []string, err error) {
	o = stage.Options{Paths: wiring.DefaultPaths(), Stdin: os.Stdin, Stderr: os.Stderr}
	fs := flag.NewFlagSet("lanyard-attach", flag.ContinueOnError)
	fs.Usage = func() {
		fmt.Fprintf(os.Stderr, `lanyard-attach: carry out one stage of the OCI hook, without the service

usage: lanyard-attach [--root DIR] [--timeout DURATION] %s < STATE

lanyard-hook executes it if no "lanyard serve" answers. It reads the container's state, as
a runtime writes it (OCI runtime spec, "State"):
  runc state c1 | lanyard-attach createRuntime   attach a container that runs without its interface
  runc state c1 | lanyard-attach poststop        detach it
The plugins lanyard-cni and lanyard-netavark execute it, too, with arguments of their own.
`, strings.Join(oci.Stages, "|"))
	}
	fs.DurationVar(&o.Timeout, "timeout", 10*time.Second, "maximum time")
	root := fs.String("root", "", "directory for definitions, records and pins (for tests)")
	if err := fs.Parse(args); err != nil {
		return o, nil, err
	}
	if *root != "" {
		o.Paths = wiring.PathsUnder(*root)
	}
	_, plugin := stage.PluginOf(o, fs.Args())
	switch {
	case !plugin && (fs.NArg() != 1 || !oci.ValidStage(fs.Arg(0))):
		err = fmt.Errorf("%q: name one stage: %s", fs.Args(), strings.Join(oci.Stages, ", "))
	case o.Timeout <= 0:
		err = fmt.Errorf("--timeout %s: use a duration such as 10s", o.Timeout)
	}
	return o, fs.Args(), err
}
