package testenv

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// complaints stands for a test's report, to see what would fail it.
type complaints struct {
	testing.TB
	said []string
}

func (c *complaints) Errorf(format string, args ...any) { c.said = append(c.said, format) }
func (c *complaints) Helper()                           {}

func TestLeaksAreFailures(t *testing.T) {
	leaks := map[string]func(*testing.T, *Namespace){
		"process": func(t *testing.T, n *Namespace) {
			cmd := exec.Command("cat")
			stdin, err := cmd.StdinPipe()
			must(t, err)
			must(t, n.Start(cmd))
			t.Cleanup(func() { stdin.Close(); cmd.Wait() })
		},
		"descriptor": func(t *testing.T, n *Namespace) {
			f, err := os.Open(n.Path())
			must(t, err)
			t.Cleanup(func() { f.Close() })
		},
		"thread": func(t *testing.T, n *Namespace) {
			entered, leave := make(chan bool), make(chan bool)
			go n.Do(func() error { close(entered); <-leave; return nil })
			<-entered
			t.Cleanup(func() { close(leave) })
		},
	}
	for name, leak := range leaks {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := NewNamespace(t, strings.ToUpper(name))
			leak(t, n)
			c := &complaints{TB: t}
			n.checkLeaks(c)
			if len(c.said) != 1 {
				t.Errorf("a leaked %s was reported %d times, want once", name, len(c.said))
			}
		})
	}
}
