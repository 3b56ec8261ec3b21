// Lanyard-cni is a CNI plugin, for engines and meta plugins that attach containers by CNI: Multus,
// nerdctl, and the runtimes of Kubernetes. A configuration names a network of "lanyard network
// create". ADD, DEL and GC are those of the OCI hook, for a namespace that the runtime names by its
// path; CHECK is "lanyard verify".
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	cniversion "github.com/containernetworking/cni/pkg/version"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/netns"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/verify"
)

// version is set by the linker: -X main.version=v1.2.3.
var version string

// Error codes besides those of package types.
const (
	errNotAvailable uint = 50  // of the specification: the plugin cannot serve an ADD
	errVerdict      uint = 100 // the plugin's own: a fatal verdict
)

// timeout is the maximum time for one command.
const timeout = 30 * time.Second

func main() {
	skel.PluginMainFuncs(
		skel.CNIFuncs{Add: command(add), Del: command(del), Check: command(check), GC: command(gc), Status: command(status)},
		cniversion.PluginSupports("0.3.1", "0.4.0", "1.0.0", "1.1.0"),
		"CNI plugin lanyard-cni "+cmp.Or(version, "unreleased"),
	)
}

// call is one command of a runtime.
type call struct {
	*wiring.Lanyard
	conf *config
	args *skel.CmdArgs
}

// command returns f as a function of package skel: with its configuration, with all parts, and with
// errors that are one line and have CNI's codes.
func command(f func(context.Context, call) error) func(*skel.CmdArgs) error {
	return func(args *skel.CmdArgs) error {
		c, err := parse(args.StdinData)
		if err != nil {
			return err
		}
		l, err := wiring.OpenPrivileged(wiring.PathsFromEnv())
		if err != nil {
			return cniError(err)
		}
		defer l.Close()
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		return cniError(f(ctx, call{l, c, args}))
	}
}

// add attaches the namespace, and prints the result.
func add(ctx context.Context, c call) error {
	r, err := c.conf.request(c.args)
	if err != nil {
		return err
	}
	def, err := network.Load(c.Networks, c.conf.Network)
	if err != nil {
		return err
	}
	got, err := c.Attach(ctx, r)
	if err != nil {
		return err
	}
	result, err := resultOf(c.conf, def, got[0], c.args.Netns)
	if err == nil {
		err = types.PrintResult(result, c.conf.CNIVersion)
	}
	if err != nil {
		return errors.Join(err, c.Detach(ctx, r.Container))
	}
	return nil
}

// del detaches. It needs neither the namespace nor the network.
func del(ctx context.Context, c call) error {
	return c.Detach(ctx, c.conf.holder(c.args.ContainerID, c.args.IfName))
}

// check verifies the attachment again, as "lanyard verify" does. It fails if an ADD would fail with
// the verdict, or if the container has changed its interface so that traffic cannot work.
func check(ctx context.Context, c call) error {
	if c.conf.PrevResult == nil {
		return invalid("CHECK needs the prevResult of the ADD")
	}
	recs, err := c.Attachments(ctx)
	if err != nil {
		return err
	}
	holder := c.conf.holder(c.args.ContainerID, c.args.IfName)
	i := slices.IndexFunc(recs, func(a hook.Attachment) bool {
		held := slices.ContainsFunc(a.Containers, func(k hook.Container) bool { return k.ID == holder })
		return held && a.State == hook.Attached
	})
	if i < 0 {
		return types.NewError(types.ErrUnknownContainer,
			fmt.Sprintf("container %q has no attachment as %q: delete it and add it again", c.args.ContainerID,
				c.args.IfName), "")
	}
	if err := compare(c.conf.PrevResult, recs[i]); err != nil {
		return err
	}
	verdicts, err := c.Verify(ctx, recs[i])
	for _, v := range verdicts {
		if v.Code.Fatal(recs[i].Mode) || v.Code == verify.InterfaceChanged || v.Code == verify.InterfaceGone {
			err = errors.Join(err, &hook.Refusal{Verdict: v})
		}
	}
	return err
}

// gc releases this CNI network's attachments that the runtime does not list as valid, and what a
// killed plugin has left.
func gc(ctx context.Context, c call) error {
	recs, err := c.Attachments(ctx)
	if err != nil {
		return err
	}
	valid := map[string]bool{}
	for _, a := range c.conf.ValidAttachments {
		valid[c.conf.holder(a.ContainerID, a.IfName)] = true
	}
	for _, a := range recs {
		for _, k := range a.Containers {
			if k.ByPath() && strings.HasSuffix(k.ID, ":"+c.conf.Name) && !valid[k.ID] {
				err = errors.Join(err, c.Detach(ctx, k.ID))
			}
		}
	}
	_, swept := c.Sweep(ctx)
	return errors.Join(err, swept)
}

// status returns an error if an ADD would fail.
func status(ctx context.Context, c call) error {
	if err := c.Ready(ctx, c.conf.Network); err != nil {
		return types.NewError(errNotAvailable, oneLine(err), "")
	}
	return nil
}

// cniError returns err as an error of CNI: one line, and the code of the cause. nil stays nil.
func cniError(err error) error {
	var own *types.Error
	var refusal *hook.Refusal
	code := types.ErrInternal
	switch {
	case err == nil || errors.As(err, &own):
		return err
	case errors.As(err, &refusal):
		code = errVerdict
	case errors.Is(err, network.ErrNotExist):
		code = types.ErrInvalidNetworkConfig
	case errors.Is(err, netns.ErrHostNetns):
		code = types.ErrInvalidNetNS
	case errors.Is(err, ipam.ErrPoolFull), errors.Is(err, context.DeadlineExceeded):
		code = types.ErrTryAgainLater
	case errors.Is(err, hook.ErrUnprivileged):
		code = errNotAvailable
	}
	return types.NewError(code, "lanyard: "+oneLine(err), "")
}

// oneLine returns an error's text in one line.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
