package testenv

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// recorder is a testing.TB that records errors instead of failing the test.
type recorder struct {
	testing.TB
	errors []string
}

func (c *recorder) Errorf(format string, args ...any) { c.errors = append(c.errors, format) }
func (c *recorder) Helper()                           {}

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
			c := &recorder{TB: t}
			n.checkLeaks(c)
			if len(c.errors) != 1 {
				t.Errorf("a leaked %s was reported %d times, want once", name, len(c.errors))
			}
		})
	}
}
