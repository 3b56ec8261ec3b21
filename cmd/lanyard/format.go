package main

import (
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"text/template"

	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/cmd/internal/overview"
)

// formatFlag is --format of a command that prints rows of one type.
type formatFlag struct {
	*cli.StringFlag
	row reflect.Type
}

// flagFormat returns the flag --format of a command that prints rows of type T in a table.
func flagFormat[T any]() cli.Flag {
	row := reflect.TypeFor[T]()
	usage := fmt.Sprintf("`FORMAT` output format: table, json, or a Go template such as '{{.%s}}' (default: table)",
		placeholders(row)[0])
	return formatFlag{&cli.StringFlag{Name: "format", Value: "table", Usage: usage}, row}
}

// flagFormatJSON is flagFormat for a command that prints JSON by default, and no table.
func flagFormatJSON[T any]() cli.Flag {
	row := reflect.TypeFor[T]()
	usage := fmt.Sprintf("`FORMAT` output format: json, or a Go template such as '{{.%s}}' (default: json)",
		placeholders(row)[0])
	return formatFlag{&cli.StringFlag{Name: "format", Value: "json", Usage: usage}, row}
}

// values returns the formats for completion: the names, and a template of each field.
func (f formatFlag) values() (words []string) {
	words = []string{"table", "json"}
	if f.Value == "json" {
		words = words[1:]
	}
	for _, name := range placeholders(f.row) {
		words = append(words, "{{."+name+"}}")
	}
	return words
}

// placeholders returns the names that a template can use: fields, and methods without arguments.
func placeholders(row reflect.Type) (names []string) {
	for _, f := range reflect.VisibleFields(row) {
		if f.IsExported() && !f.Anonymous {
			names = append(names, f.Name)
		}
	}
	for m := range row.NumMethod() {
		method := row.Method(m)
		if method.Type.NumIn() == 1 && method.Type.NumOut() == 1 && method.Name != "String" {
			names = append(names, method.Name)
		}
	}
	return names
}

// rowFormat is how a command prints its rows.
type rowFormat struct {
	json     bool
	template *template.Template // nil: as JSON, or as a table
}

// table reports whether the rows are printed as a table.
func (f rowFormat) table() bool { return !f.json && f.template == nil }

// escapes are what docker and podman replace in templates, because shells do not.
var escapes = strings.NewReplacer(`\t`, "\t", `\n`, "\n")

// functions are those that templates of docker and podman have, too.
var functions = template.FuncMap{
	"json": func(v any) (string, error) {
		text, err := json.Marshal(v)
		return string(text), err
	},
	"join":  joinList,
	"upper": strings.ToUpper,
	"lower": strings.ToLower,
}

// joinList joins the elements of any list.
func joinList(list any, separator string) (string, error) {
	v := reflect.ValueOf(list)
	if v.Kind() != reflect.Slice && v.Kind() != reflect.Array {
		return "", fmt.Errorf("join needs a list, not %T", list)
	}
	words := make([]string, v.Len())
	for i := range words {
		words[i] = fmt.Sprint(v.Index(i))
	}
	return strings.Join(words, separator), nil
}

// rowFormatOf returns the format that --format asks for.
func rowFormatOf(c *cli.Context) (f rowFormat, err error) {
	word := c.String("format")
	hasTable := slices.ContainsFunc(c.Command.Flags, func(f cli.Flag) bool {
		own, ok := f.(formatFlag)
		return ok && own.Value == "table"
	})
	switch {
	case word == "json":
		return rowFormat{json: true}, nil
	case word == "table" && hasTable:
		return rowFormat{}, nil
	case strings.Contains(word, "{{"):
		f.template, err = template.New("--format").Funcs(functions).Parse(escapes.Replace(word))
		if err != nil {
			return f, usagef("--format %q: %s", word, strings.TrimPrefix(err.Error(), "template: --format:"))
		}
		return f, nil
	case hasTable:
		return f, usagef("--format %q: use table, json or a Go template", word)
	}
	return f, usagef("--format %q: use json or a Go template", word)
}

// printRows prints rows as JSON, or each by the template. An empty list is [], not null.
func printRows[T any](w io.Writer, f rowFormat, rows []T) error {
	if f.template == nil {
		return printJSON(w, rows)
	}
	for _, row := range rows {
		if err := printRow(w, f.template, row); err != nil {
			return err
		}
	}
	return nil
}

// printRow prints one row by a template, as one line. Nothing is printed on an error.
func printRow[T any](w io.Writer, t *template.Template, row T) error {
	var text strings.Builder
	if err := t.Execute(&text, row); err != nil {
		_, reason, _ := strings.Cut(err.Error(), ">: ") // after the place in the template
		return usagef("--format: %s", explainTemplate(reason, reflect.TypeFor[T]()))
	}
	lines := strings.Split(text.String(), "\n")
	for i, line := range lines {
		cells := strings.Split(line, "\t")
		for i, cell := range cells {
			cells[i] = overview.Printable(cell)
		}
		lines[i] = strings.Join(cells, "\t")
	}
	_, err := fmt.Fprintln(w, strings.Join(lines, "\n"))
	return err
}

// explainTemplate adds to text/template's reason, such as "can't evaluate field X in type overview.Row",
// which fields the row has.
func explainTemplate(reason string, row reflect.Type) string {
	field, unknown := strings.CutPrefix(reason, "can't evaluate field ")
	field, in, _ := strings.Cut(field, " in type ")
	switch {
	case !unknown:
		return reason
	case in != row.String():
		return fmt.Sprintf("%q is not a field there: \"{{json .}}\" shows the row", field)
	}
	names := placeholders(row)
	if hint := didYouMean(field, names); hint != "" {
		return fmt.Sprintf("%q is not a field%s", field, hint)
	}
	return fmt.Sprintf("%q is not a field: use one of %s", field, strings.Join(names, ", "))
}
