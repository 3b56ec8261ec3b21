package main

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/hook/network"
)

// line is a parsed command line: command, flags and arguments. Package flag, which
// urfave/cli v2 uses, stops at the first argument, but docker accepts flags after it and
// users type them there. urfave/cli v3 parses such lines itself.
type line struct {
	commands []*cli.Command // "network", "create"
	global   []string       // flags of the program, each as --name=value
	local    []string       // flags of the command, likewise
	args     []string

	flags        []cli.Flag     // flags that may come next
	verbs        []*cli.Command // commands that may come next
	pending      cli.Flag       // the flag that still needs its value
	pendingTyped string         // that flag as the user typed it

	given map[cli.Flag][2]string // flags that may be given once: normalized, and as the user typed them
}

// errNoValue is returned by read when the line ends with a flag that needs a value.
var errNoValue = errors.New("no value")

// normalize moves flags before arguments. It returns a usage error for unknown flags and
// commands, in the words that the user typed.
func normalize(app *cli.App, args []string) ([]string, error) {
	if len(args) > 0 && args[0] == "help" {
		args = append(args[1:len(args):len(args)], "--help")
	}
	l := line{flags: app.Flags, verbs: app.Commands}
	if err := l.read(app, args); err != nil {
		if errors.Is(err, errNoValue) {
			err = usagef("%s needs a value", l.pendingTyped)
		}
		return nil, err
	}
	return l.words(), nil
}

func (l *line) read(app *cli.App, args []string) error {
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch {
		case l.pending != nil:
			f := l.pending
			l.pending = nil
			if err := l.add(app, f, "="+arg, l.pendingTyped+" "+arg); err != nil {
				return err
			}
		case arg == "--":
			l.args = append(l.args, args...)
			args = nil
		case len(arg) > 1 && arg[0] == '-':
			if err := l.flag(app, arg); err != nil {
				return err
			}
		case len(l.verbs) > 0:
			if err := l.verb(arg); err != nil {
				return err
			}
		default:
			l.args = append(l.args, arg)
		}
	}
	if l.pending != nil {
		return errNoValue
	}
	return nil
}

func (l *line) verb(word string) error {
	var names []string
	for _, v := range l.verbs {
		if v.HasName(word) {
			l.commands = append(l.commands, v)
			l.flags, l.verbs = v.Flags, v.Subcommands
			return nil
		}
		names = append(names, v.Name)
	}
	return usagef("%q is not a command of %q%s", word, l.path(), didYouMean(word, names))
}

// flag reads --name, --name=value, -n and -nvalue.
func (l *line) flag(app *cli.App, arg string) error {
	name, value, joined := strings.Cut(strings.TrimLeft(arg, "-"), "=")
	f := l.lookup(app, name)
	if f == nil && arg[1] != '-' {
		if short := l.lookup(app, arg[1:2]); short != nil && takesValue(short) {
			f, value, joined = short, arg[2:], true
		}
	}
	switch {
	case f == nil:
		return l.unknown(app, arg)
	case takesValue(f) && !joined:
		l.pending, l.pendingTyped = f, arg
		return nil
	case takesValue(f):
		return l.add(app, f, "="+value, arg)
	case !joined:
		return l.add(app, f, "=true", arg)
	}
	if _, err := strconv.ParseBool(value); err != nil {
		return usagef("%s is neither true nor false: write %s", arg, strings.TrimSuffix(arg, "="+value))
	}
	return l.add(app, f, "="+value, arg)
}

// add adds a flag to those of the program or of the command. It returns a usage error if
// a flag that is not a list has two different values.
func (l *line) add(app *cli.App, f cli.Flag, value, typed string) error {
	word := "--" + f.Names()[0] + value
	if _, list := f.(*cli.StringSliceFlag); !list {
		if first, twice := l.given[f]; twice && first[0] != word {
			return usagef("%s and %s contradict each other: give one", first[1], typed)
		}
		if l.given == nil {
			l.given = map[cli.Flag][2]string{}
		}
		l.given[f] = [2]string{word, typed}
	}
	if slices.Contains(app.Flags, f) {
		l.global = append(l.global, word)
	} else {
		l.local = append(l.local, word)
	}
	return nil
}

func (l *line) lookup(app *cli.App, name string) cli.Flag {
	for _, f := range l.knownFlags(app) {
		for _, n := range f.Names() {
			if n == name {
				return f
			}
		}
	}
	return nil
}

// knownFlags returns the flags of the command, with --help and the flags of the
// program.
func (l *line) knownFlags(app *cli.App) []cli.Flag {
	known := append([]cli.Flag{}, l.flags...)
	if len(l.commands) > 0 {
		known = append(known, app.Flags...)
	}
	return append(known, cli.HelpFlag)
}

func (l *line) unknown(app *cli.App, arg string) error {
	typed, _, _ := strings.Cut(arg, "=")
	var names []string
	for _, f := range l.knownFlags(app) {
		for _, n := range f.Names() {
			if len(n) > 1 {
				names = append(names, "--"+n)
			}
		}
	}
	return usagef("%q is not a flag of %q%s", typed, l.path(), didYouMean(typed, names))
}

func didYouMean(word string, known []string) string {
	if near := network.Nearest(word, known); near != "" {
		return "; did you mean " + near + "?"
	}
	return ""
}

// path returns the command with the program: "lanyard network create".
func (l *line) path() string {
	words := []string{"lanyard"}
	for _, c := range l.commands {
		words = append(words, c.Name)
	}
	return strings.Join(words, " ")
}

// words returns the line in the order that urfave/cli expects.
func (l *line) words() []string {
	words := l.global
	for _, c := range l.commands {
		words = append(words, c.Name)
	}
	words = append(words, l.local...)
	if len(l.args) > 0 {
		words = append(append(words, "--"), l.args...)
	}
	return words
}

func takesValue(f cli.Flag) bool {
	d, ok := f.(cli.DocGenerationFlag)
	return ok && d.TakesValue()
}
