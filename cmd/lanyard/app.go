package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

var flagRoot = &cli.StringFlag{
	Name:  "root",
	Usage: "`DIR` directory for definitions, records and pins, separate from the installed system (for tests)",
}

func newApp(e env) *cli.App {
	cli.FlagStringer = flagLine
	app := &cli.App{
		Name:      "lanyard",
		Usage:     "connect containers directly to the LAN, and prove it on the wire",
		UsageText: "lanyard [--root DIR] COMMAND …",
		Description: `A network is defined once, with the options of "docker network create":
  lanyard network create web50 --parent eth0.50 --subnet 192.168.50.0/24

A container asks for it by an annotation, which its runtime passes to lanyard-hook:
  io.lanyard.network=web50

  lanyard ps             list what every container got, and whether it works
  lanyard verify web50   probe the gateway again, now`,
		Flags:     []cli.Flag{flagRoot},
		Writer:    e.stdout,
		ErrWriter: e.stderr,
		Commands: []*cli.Command{
			e.network(), e.ps(), e.inspect(), e.verify(), e.watch(), e.gc(), e.restore(), e.reattach(), e.serve(),
			e.why(), e.audit(), e.doctor(), e.lldp(), e.leases(), e.metrics(), e.hooks(), e.version(), e.completion(),
		},
		// Labels and driver options may contain commas. listFlag splits flags that are lists.
		DisableSliceFlagSeparator: true,
		CustomAppHelpTemplate:     helpTemplate,
		Action:                    cli.ShowAppHelp,
		ExitErrHandler:            func(*cli.Context, error) {}, // main prints the error
		OnUsageError:              onUsageError,
		HideHelpCommand:           true, // normalize turns "help" into --help
	}
	setDefaults(app.Commands)
	return app
}

// setDefaults sets the settings that all commands share, also for subcommands.
func setDefaults(commands []*cli.Command) {
	for _, c := range commands {
		c.HideHelpCommand = true // a container or network may have the name "help", or "h"
		c.CustomHelpTemplate = helpTemplate
		c.OnUsageError = onUsageError
		if c.Action == nil {
			c.Action = cli.ShowSubcommandHelp
		}
		setDefaults(c.Subcommands)
	}
}

func onUsageError(_ *cli.Context, err error, _ bool) error { return usagef("%v", err) }

// helpTemplate is the help of the program and of each command.
const helpTemplate = `{{.HelpName}}: {{.Usage}}

Usage: {{.UsageText}}
{{if .Description}}
{{.Description}}
{{end}}{{if .VisibleCommands}}
Commands:{{range .VisibleCommands}}
  {{.Name}}{{"\t"}}{{.Usage}}{{end}}
{{end}}{{if .VisibleFlags}}
Options:{{range .VisibleFlags}}
  {{.}}{{end}}
{{end}}`

// flagLine returns the help line of a flag. The name of its value is at the beginning of
// the usage, in backquotes.
func flagLine(f cli.Flag) string {
	short, long := "    ", ""
	for _, n := range f.Names() {
		switch {
		case len(n) == 1:
			short = "-" + n + ", "
		case long == "":
			long = "--" + n
		}
	}
	d, ok := f.(cli.DocGenerationFlag)
	if !ok {
		return short + long
	}
	usage := d.GetUsage()
	if rest, ok := strings.CutPrefix(usage, "`"); ok {
		value, text, _ := strings.Cut(rest, "`")
		long, usage = long+" "+value, strings.TrimSpace(text)
	}
	return fmt.Sprintf("%s%s\t%s", short, long, usage)
}

// checkArgs returns a usage error unless the command has n arguments. what names one of
// them in the error.
func checkArgs(n int, c *cli.Context, what string) error {
	switch {
	case c.NArg() < n:
		return missingArg(c, what)
	case c.NArg() > n:
		return usagef("unexpected argument %q: %q takes %s", c.Args().Get(n), c.Command.HelpName, argCount(n, what))
	}
	return nil
}

func missingArg(c *cli.Context, what string) error {
	return usagef("%s is missing: %s", what, c.Command.UsageText)
}

func argCount(n int, what string) string {
	if n == 0 {
		return "no arguments"
	}
	return "one " + what
}
