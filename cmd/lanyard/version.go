package main

import (
	"cmp"
	"fmt"
	"runtime"

	"github.com/urfave/cli/v2"
)

// version is set by the linker: -X main.version=v1.2.3.
var version string

func (e env) version() *cli.Command {
	return &cli.Command{
		Name:      "version",
		Usage:     "print the version",
		UsageText: "lanyard version",
		Action: func(c *cli.Context) error {
			if err := checkArgs(0, c, "argument"); err != nil {
				return err
			}
			_, err := fmt.Fprintf(e.stdout, "lanyard %s (%s %s/%s)\n", cmp.Or(version, "unreleased"), runtime.Version(),
				runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}
