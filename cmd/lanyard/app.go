package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

var flagRoot = &cli.StringFlag{
	Name:  "root",
	Usage: "`DIR` keep definitions, records and pins below it, apart from the installed system: for trials and tests",
}

func newApp(e env) *cli.App {
	cli.FlagStringer = flagLine
	app := &cli.App{
		Name:      "lanyard",
		Usage:     "hook containers straight onto the LAN, proven on the wire",
		UsageText: "lanyard [--root DIR] COMMAND …",
		Description: `A network is defined once, with the words that "docker network create" knows:
  lanyard network create web50 --parent eth0.50 --subnet 192.168.50.0/24

A container then asks for it by an annotation that its runtime hands to
lanyard-hook: io.lanyard.network=web50

  lanyard ps             what every container got, and whether it works
  lanyard verify web50   ask the gateway again, now`,
		Flags:     []cli.Flag{flagRoot},
		Writer:    e.stdout,
		ErrWriter: e.stderr,
		Commands: []*cli.Command{
			e.network(), e.ps(), e.inspect(), e.verify(), e.watch(), e.gc(), e.restore(), e.serve(), e.why(), e.audit(), e.version(), e.completion(),
		},
		// Labels and driver options may hold commas; what is a list is split where it is read.
		DisableSliceFlagSeparator: true,
		CustomAppHelpTemplate:     helpTemplate,
		Action:                    cli.ShowAppHelp,
		ExitErrHandler:            func(*cli.Context, error) {}, // main's to say
		OnUsageError:              onUsageError,
		HideHelpCommand:           true, // "help" is turned into --help: see arrange
	}
	setDefaults(app.Commands)
	return app
}

// dress gives every command what all have in common.
func setDefaults(commands []*cli.Command) {
	for _, c := range commands {
		c.HideHelpCommand = true // a container or network may be named "help", or "h"
		c.CustomHelpTemplate = helpTemplate
		c.OnUsageError = onUsageError
		if c.Action == nil {
			c.Action = cli.ShowSubcommandHelp
		}
		setDefaults(c.Subcommands)
	}
}

func onUsageError(_ *cli.Context, err error, _ bool) error { return usagef("%v", err) }

// helpTemplate is for the whole and for each command alike.
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

// flagLine is one line of a command's options. What the value is called stands
// at the beginning of its usage, between backquotes.
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

// exactly checks the number of a command's arguments.
func checkArgs(n int, c *cli.Context, what string) error {
	switch {
	case c.NArg() < n:
		return missingArg(c, what)
	case c.NArg() > n:
		return usagef("%q is one too many for %q: it takes %s", c.Args().Get(n), c.Command.HelpName, argCount(n, what))
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
