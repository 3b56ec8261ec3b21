// Lanyard is the administrator's command line: it defines networks, shows what
// containers got from them, and proves again, now, that they work. One file
// holds one verb.
//
// Package hook/admin carries out the verbs. "lanyard serve" or lanyard-attach attaches containers.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/internal/leases"
	"github.com/lanyard-net/lanyard/internal/wiring"
)

func main() {
	leases.Register()
	ctx, _ := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	e := env{stdout: os.Stdout, stderr: os.Stderr, terminal: isTerminal(os.Stderr)}
	os.Exit(e.status(run(ctx, e, os.Args[1:])))
}

// env holds the output streams of a command. Tests replace them.
type env struct {
	stdout, stderr io.Writer
	terminal       bool // stderr is a terminal
}

// errUsage is returned when the command line is wrong, independent of the state of the
// host. errReported is returned when the reason was already printed to stderr.
var (
	errUsage    = errors.New("wrong usage")
	errReported = errors.New("failed")
)

// usagef returns a usage error with a message.
func usagef(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}

type usageError struct{ text string }

func (e *usageError) Error() string        { return e.text }
func (e *usageError) Is(target error) bool { return target == errUsage }

func run(ctx context.Context, e env, args []string) error {
	app := newApp(e)
	if len(args) > 0 && args[0] == completeVerb {
		e.complete(ctx, app, args[1:])
		return nil
	}
	args, err := normalize(app, args)
	if err != nil {
		return err
	}
	return app.RunContext(ctx, append([]string{app.Name}, args...))
}

// status prints the error and returns the exit status: 1 for a failure, 2 for wrong
// usage.
func (e env) status(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errReported):
		return 1
	case errors.Is(err, errUsage):
		e.say("%v", err)
		return 2
	}
	e.say("%v", err)
	return 1
}

// say prints one line to stderr. Line breaks in the message become semicolons.
func (e env) say(format string, args ...any) {
	line := strings.TrimSpace(fmt.Sprintf(format, args...))
	fmt.Fprintln(e.stderr, "lanyard: "+strings.ReplaceAll(line, "\n", "; "))
}

// slowAfter is the time after which a command on a terminal says what it is doing.
const slowAfter = time.Second

// slow prints a message if done is not called within slowAfter.
func (e env) slow(format string, args ...any) (done func()) {
	if !e.terminal {
		return func() {}
	}
	said := make(chan struct{})
	timer := time.AfterFunc(slowAfter, func() {
		defer close(said)
		e.say(format, args...)
	})
	return func() {
		if !timer.Stop() {
			<-said
		}
	}
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// paths returns the paths of the installed system, or those below --root.
func paths(c *cli.Context) wiring.Paths {
	if root := c.String(flagRoot.Name); root != "" {
		return wiring.PathsUnder(root)
	}
	return wiring.DefaultPaths()
}

// open opens Lanyard for a command that needs privilege.
func open(c *cli.Context) (*wiring.Lanyard, error) {
	l, err := wiring.OpenPrivileged(paths(c))
	if errors.Is(err, hook.ErrUnprivileged) {
		return nil, unprivileged(c)
	}
	return l, err
}

// openListing checks the arguments and --format of a command that lists, and opens
// Lanyard.
func openListing(args int, c *cli.Context, what string) (l *wiring.Lanyard, f rowFormat, err error) {
	if err = checkArgs(args, c, what); err != nil {
		return nil, f, err
	}
	if f, err = rowFormatOf(c); err != nil {
		return nil, f, err
	}
	l, err = open(c)
	return l, f, err
}

func unprivileged(c *cli.Context) error {
	return fmt.Errorf("%q needs CAP_NET_ADMIN: run it as root", c.Command.HelpName)
}
