package main

import (
	"errors"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/hook/oci"
	"github.com/lanyard-net/lanyard/internal/stage"
)

func (e env) attach() *cli.Command {
	return &cli.Command{
		Name:      "attach",
		Usage:     "carry out one stage of the OCI hook, without the service",
		UsageText: "lanyard attach [OPTIONS] " + strings.Join(oci.Stages, "|") + " < STATE",
		Description: `lanyard-hook executes this command if no "lanyard serve" answers. It reads the
container's state from stdin, as a runtime writes it (OCI runtime spec, "State").

Examples:
  runc state c1 | lanyard attach createRuntime   attach a container that runs without its interface
  runc state c1 | lanyard attach poststop        detach it`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "timeout", Value: "10s", Usage: "`DURATION` maximum time (default: 10s)"},
		},
		Action: e.runAttach,
	}
}

func (e env) runAttach(c *cli.Context) error {
	if err := checkArgs(1, c, "stage"); err != nil {
		return err
	}
	timeout, err := time.ParseDuration(c.String("timeout"))
	if err != nil || timeout <= 0 {
		return usagef("--timeout %q: use a duration such as 10s", c.String("timeout"))
	}
	if !oci.ValidStage(c.Args().First()) {
		return usagef("%q: use %s", c.Args().First(), strings.Join(oci.Stages, ", "))
	}
	return stage.Run(c.Context, stage.Options{
		Paths: paths(c), Stage: c.Args().First(), Timeout: timeout, Stdin: os.Stdin, Stderr: e.stderr,
	}, func(err error) { os.Exit(e.status(errors.New(oci.Line(err)))) })
}
