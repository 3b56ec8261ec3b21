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

It is of what "network create --from" takes, for editors and configuration tools.
What one field says of another, "network create" alone can tell.`,
		Action: func(c *cli.Context) error {
			if err := checkArgs(0, c, "argument"); err != nil {
				return err
			}
			_, err := e.stdout.Write(schema.Network)
			return err
		},
	}
}
