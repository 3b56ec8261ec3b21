package main

import (
	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/hook/network/schema"
)

func (e env) networkSchema() *cli.Command {
	return &cli.Command{
		Name:      "schema",
		Usage:     "print the JSON Schema of definitions",
		UsageText: "lanyard network schema",
		Description: `Examples:
  lanyard network schema > network.schema.json
  check-jsonschema --schemafile network.schema.json web50.json

The schema describes the files for "network create --from", for editors and
configuration tools. Rules between fields are checked only by "network create".`,
		Action: func(c *cli.Context) error {
			if err := checkArgs(0, c, "argument"); err != nil {
				return err
			}
			_, err := e.stdout.Write(schema.Network)
			return err
		},
	}
}
