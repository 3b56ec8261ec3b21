package main

import (
	"cmp"
	"fmt"
	"runtime"

	"github.com/urfave/cli/v2"
)

// version is set by the linker: -X main.version=v1.2.3.
var version string

// versionRow is the JSON of "version".
type versionRow struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

func (e env) version() *cli.Command {
	return &cli.Command{
		Name:      "version",
		Usage:     "print the version",
		UsageText: "lanyard version [OPTIONS]",
		Flags:     []cli.Flag{flagFormat[versionRow]()},
		Action: func(c *cli.Context) error {
			if err := checkArgs(0, c, "argument"); err != nil {
				return err
			}
			format, err := rowFormatOf(c)
			if err != nil {
				return err
			}
			v := versionRow{cmp.Or(version, "unreleased"), runtime.Version(), runtime.GOOS, runtime.GOARCH}
			if !format.table() {
				return printRows(e.stdout, format, []versionRow{v})
			}
			_, err = fmt.Fprintf(e.stdout, "lanyard %s (%s %s/%s)\n", v.Version, v.Go, v.OS, v.Arch)
			return err
		},
	}
}
