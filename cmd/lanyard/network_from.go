package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
)

// maxDefinition bounds the file that --from reads, in bytes.
const maxDefinition = 16 << 20

// defineFrom reads definitions from a file. It replaces the fields that belong to an
// existing network (generation, creation time, whether Lanyard created the parent): a copy
// of a definition is another network.
func defineFrom(c *cli.Context) ([]*network.Definition, error) {
	for _, f := range c.Command.Flags {
		if name := f.Names()[0]; name != "from" && c.IsSet(name) {
			return nil, usagef("--from and --%s contradict each other: set it in the file", name)
		}
	}
	if c.NArg() > 1 {
		return nil, checkArgs(1, c, "NAME")
	}
	file := c.String("from")
	text, err := readDefinition(file)
	if err != nil {
		return nil, fmt.Errorf("--from %q: %w", file, err)
	}
	defs, err := network.DecodeAll(text)
	if err != nil {
		return nil, usagef("--from %q: %v", file, err)
	}
	if len(defs) == 0 {
		return nil, usagef("--from %q: contains no definition", file)
	}
	if name := c.Args().First(); name != "" {
		if len(defs) > 1 {
			return nil, usagef("--from %q: contains %d definitions: leave NAME out", file, len(defs))
		}
		if own := defs[0].Name; own != "" && own != name {
			return nil, usagef("--from %q: name: is %q in the file and %q on the command line: give one", file, own, name)
		}
		defs[0].Name = name
	}
	first := map[string]int{}
	for i, def := range defs {
		err := fillDefaults(def)
		if before, twice := first[def.Name]; err == nil && twice {
			err = fmt.Errorf("name: %q is the name of [%d] too: use different names", def.Name, before)
		}
		first[def.Name] = i
		if err != nil {
			where := ""
			if len(defs) > 1 {
				where = fmt.Sprintf("[%d]: ", i)
			}
			return nil, usagef("--from %q: %s%v", file, where, err)
		}
	}
	return defs, nil
}

// fillDefaults sets the fields that a file may leave out, and validates the definition.
func fillDefaults(def *network.Definition) error {
	def.ID, def.Created, def.Managed = network.NewID(), time.Now().UTC().Truncate(time.Second), false
	if def.Driver == "" {
		def.Driver = network.DriverMacvlan
	}
	if def.Mode == "" {
		def.Mode = network.ModeBridge
		if def.Driver == network.DriverIPvlan {
			def.Mode = network.ModeL2
		}
	}
	if def.Parent == "" {
		def.Parent, def.Internal = network.DummyParent(def.ID), true
	}
	if err := def.Validate(); err != nil {
		return err
	}
	_, vid, err := link.ParseParent(def.Parent)
	if err != nil {
		return fmt.Errorf("parent: %w", err)
	}
	if def.VLANProto != "" && vid == 0 {
		return fmt.Errorf("vlan-proto: %s needs a parent of the form LINK.VLAN", def.VLANProto)
	}
	return nil
}

func readDefinition(file string) ([]byte, error) {
	in := io.Reader(os.Stdin)
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			var path *os.PathError
			if errors.As(err, &path) {
				err = path.Err
			}
			return nil, err
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxDefinition+1))
	if err == nil && len(text) > maxDefinition {
		err = fmt.Errorf("is larger than %d bytes", maxDefinition)
	}
	return text, err
}
