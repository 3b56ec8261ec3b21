// Lanyard-netavark is a netavark plugin: "podman network create -d lanyard -o network=web50 NAME"
// makes a network of podman from one of "lanyard network create". The addresses are Lanyard's:
// podman's own IPAM is off. It is for root's podman only. The plugin is a messenger, as lanyard-hook
// is: the service carries out the command, or lanyard-attach, if no service answers.
package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/lanyard-net/lanyard/internal/messenger"
)

// version is set by the linker: -X main.version=v1.2.3.
var version string

func main() {
	if err := run(os.Args[1:]); err != nil {
		fail(err.Error())
	}
}

// run runs one command of the API: info, create, setup NETNS or teardown NETNS.
func run(args []string) error {
	words := map[string]int{"info": 1, "create": 1, "setup": 2, "teardown": 2}
	if len(args) == 0 || len(args) != words[args[0]] {
		return fmt.Errorf("%q: this is a netavark plugin, which podman calls: "+
			`use "podman network create -d lanyard -o network=web50 NAME"`, args)
	}
	command, netns := args[0], ""
	switch command {
	case "info":
		return json.NewEncoder(os.Stdout).Encode(map[string]string{
			"version": cmp.Or(version, "unreleased"), "api_version": "1.0.0",
		})
	case "setup": // teardown needs none
		netns = args[1]
	}
	m := messenger.ForPlugin()
	defer m.Limit(fail).Stop()
	input, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	output, ok, err := m.AskPlugin("netavark", command, netns, input)
	switch {
	case ok:
		_, err := os.Stdout.WriteString(output)
		return err
	case err == nil && strings.HasPrefix(output, "{"): // an error object
		_, _ = os.Stdout.WriteString(output)
		os.Exit(1)
	case err == nil:
		return errors.New(output)
	case !errors.Is(err, messenger.ErrNoService):
		fmt.Fprintf(os.Stderr, "lanyard: %v: the plugin goes on without the service\n", err)
	}
	return m.Execute("", input, "netavark", command, netns)
}

// fail prints an error as netavark reads it, and exits.
func fail(text string) {
	text = "lanyard: " + strings.ReplaceAll(text, "\n", "; ")
	_ = json.NewEncoder(os.Stdout).Encode(map[string]string{"error": text})
	os.Exit(1)
}
