// Lanyard-cni is a CNI plugin, for engines and meta plugins that attach containers by CNI: Multus,
// nerdctl, and the runtimes of Kubernetes. A configuration names a network of "lanyard network
// create". The plugin is a messenger, as lanyard-hook is: the service carries out the command, or
// lanyard-attach, if no service answers.
package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	cniversion "github.com/containernetworking/cni/pkg/version"

	"github.com/lanyard-net/lanyard/internal/messenger"
)

// version is set by the linker: -X main.version=v1.2.3.
var version string

func main() {
	skel.PluginMainFuncs(
		skel.CNIFuncs{
			Add: command("ADD"), Del: command("DEL"), Check: command("CHECK"), GC: command("GC"), Status: command("STATUS"),
		},
		cniversion.PluginSupports("0.3.1", "0.4.0", "1.0.0", "1.1.0"),
		"CNI plugin lanyard-cni "+cmp.Or(version, "unreleased"),
	)
}

// command returns a function of package skel that passes the command on. skel has checked the
// environment by then, and the keys that belong to CNI.
func command(name string) func(*skel.CmdArgs) error {
	return func(args *skel.CmdArgs) error {
		input, err := json.Marshal(args)
		if err != nil {
			return err
		}
		netns := ""
		if name == "ADD" { // the others need none
			netns = args.Netns
		}
		m := messenger.ForPlugin()
		defer m.Limit(fail).Stop()
		output, ok, err := m.AskPlugin("cni", name, netns, input)
		switch {
		case ok:
			_, err := os.Stdout.WriteString(output)
			return err
		case err == nil:
			return failure(output)
		case !errors.Is(err, messenger.ErrNoService):
			fmt.Fprintf(os.Stderr, "lanyard: %v: the plugin goes on without the service\n", err)
		}
		return failure(m.Execute("", input, "cni", name).Error())
	}
}

// fail prints an error as package skel does, and exits.
func fail(text string) {
	_ = failure(text).Print()
	os.Exit(1)
}

// failure returns the error object that the service has sent, or one with the text.
func failure(text string) *types.Error {
	var e types.Error
	if strings.HasPrefix(text, "{") && json.Unmarshal([]byte(text), &e) == nil {
		return &e
	}
	return types.NewError(types.ErrTryAgainLater, "lanyard: "+text, "")
}
