// Package cni carries out the commands of CNI (cni.dev) for the plugin lanyard-cni: in the service,
// or in lanyard-attach. ADD, DEL and GC are those of the OCI hook, for a namespace that the runtime
// names by its path; CHECK is "lanyard verify".
package cni

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/netns"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/verify"
)

// Error codes besides those of package types.
const (
	errNotAvailable uint = 50  // of the specification: the plugin cannot serve an ADD
	errVerdict      uint = 100 // the plugin's own: a fatal verdict
)

// Host is what the commands need besides an Attacher.
type Host interface {
	Attachments(ctx context.Context) ([]hook.Attachment, error)
	Verify(ctx context.Context, a hook.Attachment) ([]verify.Verdict, error)
	Sweep(ctx context.Context) ([]hook.Attachment, error)
	Ready(ctx context.Context, network string) error
}

// Plugin carries out commands.
type Plugin struct {
	hook.Attacher
	Host
	Networks string // directory of the definitions
}

// call is one command of a runtime.
type call struct {
	Plugin
	conf *config
	args *skel.CmdArgs
}

// commands are the commands that the plugin passes on.
var commands = map[string]func(context.Context, call) ([]byte, error){
	"ADD": add, "DEL": del, "CHECK": check, "GC": gc, "STATUS": status,
}

// Run carries out a command. input is a [skel.CmdArgs] in JSON, which package skel has checked.
// output is for the plugin's stdout, also after an error.
func (p Plugin) Run(ctx context.Context, command string, input []byte) (output []byte, err error) {
	if output, err = p.run(ctx, command, input); err != nil {
		output = Failure(err)
	}
	return output, err
}

func (p Plugin) run(ctx context.Context, command string, input []byte) ([]byte, error) {
	f := commands[command]
	if f == nil {
		return nil, types.NewError(types.ErrInvalidEnvironmentVariables, fmt.Sprintf("%.20q is no command", command), "")
	}
	var args skel.CmdArgs
	if err := json.Unmarshal(input, &args); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, oneLine(err), "")
	}
	c, err := parse(args.StdinData)
	if err != nil {
		return nil, err
	}
	return f(ctx, call{p, c, &args})
}

// add attaches the namespace, and returns the result.
func add(ctx context.Context, c call) ([]byte, error) {
	r, err := c.conf.request(c.args)
	if err != nil {
		return nil, err
	}
	def, err := network.Load(c.Networks, c.conf.Network)
	if err != nil {
		return nil, err
	}
	got, err := c.Attach(ctx, r)
	if err != nil {
		return nil, err
	}
	output, err := encode(c.conf, def, got[0], c.args.Netns)
	if err != nil {
		return nil, errors.Join(err, c.Detach(ctx, r.Container))
	}
	return output, nil
}

// del detaches. It needs neither the namespace nor the network.
func del(ctx context.Context, c call) ([]byte, error) {
	return nil, c.Detach(ctx, c.conf.holder(c.args.ContainerID, c.args.IfName))
}

// check verifies the attachment again, as "lanyard verify" does. It fails if an ADD would fail with
// the verdict, or if the container has changed its interface so that traffic cannot work.
func check(ctx context.Context, c call) ([]byte, error) {
	if c.conf.PrevResult == nil {
		return nil, invalid("CHECK needs the prevResult of the ADD")
	}
	recs, err := c.Attachments(ctx)
	if err != nil {
		return nil, err
	}
	holder := c.conf.holder(c.args.ContainerID, c.args.IfName)
	// Two of these plugins in one list have the same holder.
	name := cmp.Or(c.conf.Interface, c.args.IfName)
	i := slices.IndexFunc(recs, func(a hook.Attachment) bool {
		held := slices.ContainsFunc(a.Containers, func(k hook.Container) bool { return k.ID == holder })
		return held && a.State == hook.Attached && a.Network == c.conf.Network && a.Interface == name
	})
	if i < 0 {
		return nil, types.NewError(types.ErrUnknownContainer,
			fmt.Sprintf("container %q has no attachment as %q: delete it and add it again", c.args.ContainerID,
				c.args.IfName), "")
	}
	if err := compare(c.conf.PrevResult, recs[i]); err != nil {
		return nil, err
	}
	verdicts, err := c.Verify(ctx, recs[i])
	for _, v := range verdicts {
		if v.Code.Fatal(recs[i].Mode) || v.Code == verify.InterfaceChanged || v.Code == verify.InterfaceGone {
			err = errors.Join(err, &hook.Refusal{Verdict: v})
		}
	}
	return nil, err
}

// gc releases this CNI network's attachments that the runtime does not list as valid, and what a
// killed plugin has left; only the latter if the runtime gives no list.
func gc(ctx context.Context, c call) ([]byte, error) {
	err := c.releaseInvalid(ctx)
	_, swept := c.Sweep(ctx)
	return nil, errors.Join(err, swept)
}

func (c *call) releaseInvalid(ctx context.Context) error {
	valid, err := validAttachments(c.args.StdinData)
	if err != nil {
		return err
	}
	recs, err := c.Attachments(ctx)
	if err != nil {
		return err
	}
	keep := map[string]bool{}
	for _, a := range valid {
		keep[c.conf.holder(a.ContainerID, a.IfName)] = true
	}
	for _, a := range recs {
		for _, k := range a.Containers {
			if k.ByPath() && strings.HasSuffix(k.ID, ":"+c.conf.Name) && !keep[k.ID] {
				err = errors.Join(err, c.Detach(ctx, k.ID))
			}
		}
	}
	return err
}

// status returns an error if an ADD would fail.
func status(ctx context.Context, c call) ([]byte, error) {
	if err := c.Ready(ctx, c.conf.Network); err != nil {
		return nil, types.NewError(errNotAvailable, oneLine(err), "")
	}
	return nil, nil
}

// Failure returns the error object of CNI for err: one line, and the code of the cause.
func Failure(err error) []byte {
	var own *types.Error
	if !errors.As(err, &own) {
		own = types.NewError(codeOf(err), "lanyard: "+oneLine(err), "")
	}
	text, err := json.Marshal(own)
	if err != nil {
		panic(err) // a struct of strings and a number
	}
	return text
}

func codeOf(err error) uint {
	var refusal *hook.Refusal
	switch {
	case errors.As(err, &refusal):
		return errVerdict
	case errors.Is(err, network.ErrNotExist):
		return types.ErrInvalidNetworkConfig
	case errors.Is(err, netns.ErrHostNetns):
		return types.ErrInvalidNetNS
	case errors.Is(err, ipam.ErrPoolFull), errors.Is(err, context.DeadlineExceeded):
		return types.ErrTryAgainLater
	case errors.Is(err, hook.ErrUnprivileged):
		return errNotAvailable
	}
	return types.ErrInternal
}

// oneLine returns an error's text in one line.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
