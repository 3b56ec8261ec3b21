//go:build !vm

package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network/schema"
	"github.com/lanyard-net/lanyard/hook/oci"
)

// updateMan makes TestMan write the pages: "go test -run TestMan ./cmd/lanyard -update-man".
var updateMan = flag.Bool("update-man", false, "write the manual pages")

// manDir is the directory of all pages, from this package.
const manDir = "../../docs/man"

// TestMan checks that the pages of commands and of definitions say what --help and the JSON Schema
// say: it makes them from the same text.
func TestMan(t *testing.T) {
	app := newApp(env{stdout: io.Discard, stderr: io.Discard})
	pages := map[string]string{"lanyard.1": manOfApp(app), "lanyard-network.5": manOfDefinition(t)}
	for _, c := range app.Commands {
		pages["lanyard-"+c.Name+".1"] = manOfCommand(c)
	}
	for name, want := range pages {
		path := filepath.Join(manDir, name)
		if *updateMan {
			if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%s is not what the command's help says, %v: go test -run TestMan ./cmd/lanyard -update-man", path, err)
		}
	}
	generated, err := filepath.Glob(filepath.Join(manDir, "*.1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range generated {
		if pages[filepath.Base(path)] == "" {
			t.Errorf("%s is of no command: remove it", path)
		}
	}
}

// TestManFormat has groff read all pages: it warns of every macro and escape that it does not know.
func TestManFormat(t *testing.T) {
	pages, err := filepath.Glob(filepath.Join(manDir, "*.[1-8]"))
	if err != nil || len(pages) < 5 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	for _, page := range pages {
		out, err := exec.Command("groff", "-man", "-Tutf8", "-ww", "-z", page).CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Errorf("%s: %v: %s", page, err, out)
		}
	}
}

// TestManWritten checks that the pages that are written by hand have every annotation, and every flag
// of the hook.
func TestManWritten(t *testing.T) {
	_, _, err := oci.Parse(&specs.State{Annotations: map[string]string{"io.lanyard.zzzzzzzz": "1"}})
	if err == nil {
		t.Fatal("an unknown annotation is accepted")
	}
	keys := regexp.MustCompile(`io\.lanyard\.[a-z0-9-]+`).FindAllString(err.Error(), -1)
	mustMention(t, "lanyard-annotations.7", keys[1:], 8)
	mustMention(t, "lanyard-annotations.7", sysctlNames(), 12)
	help, _ := exec.Command("go", "run", "../lanyard-hook", "--help").CombinedOutput() // its status is 2
	mustMention(t, "lanyard-hook.8", regexp.MustCompile(`(?m)^  --[a-z]+`).FindAllString(string(help), -1), 2)
}

// sysctlNames returns the last parts of the keys that containers may request.
func sysctlNames() (names []string) {
	for _, key := range hook.SysctlKeys() {
		names = append(names, key[strings.LastIndexByte(key, '.')+1:])
	}
	return names
}

func mustMention(t *testing.T, page string, words []string, least int) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(manDir, page))
	if err != nil {
		t.Fatal(err)
	}
	plain := strings.ReplaceAll(string(text), `\-`, "-")
	if len(words) < least {
		t.Errorf("%s: there are only %q to look for", page, words)
	}
	for _, word := range words {
		if word = strings.TrimSpace(word); !strings.Contains(plain, word) {
			t.Errorf("%s does not have %s", page, word)
		}
	}
}

// man is a page in the making.
type man struct{ bytes.Buffer }

func newMan(name string, section int, about string) *man {
	m := &man{}
	m.line(`.\" Made by TestMan of cmd/lanyard: change the command, not this file.`)
	m.line(".TH %s %d \"\" Lanyard", strings.ToUpper(roff(name)), section)
	m.section("NAME")
	m.line("%s \\- %s", roff(name), roff(about))
	return m
}

func (m *man) line(format string, args ...any) { fmt.Fprintf(&m.Buffer, format+"\n", args...) }

func (m *man) section(name string) { m.line(".SH %s", name) }

// roff quotes text: no character is an escape or begins a request.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "…", "...").Replace(text)
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		text = `\&` + text
	}
	return text
}

// literal writes lines as they are.
func (m *man) literal(lines ...string) {
	m.line(".nf")
	for _, l := range lines {
		m.line("%s", roff(l))
	}
	m.line(".fi")
}

// text writes paragraphs. Lines with an indent stay as they are.
func (m *man) text(text string) {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for len(lines) > 0 {
		indented := strings.HasPrefix(lines[0], "  ")
		n := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "  ") != indented })
		if n < 0 {
			n = len(lines)
		}
		block := lines[:n]
		lines = lines[n:]
		if indented {
			m.line(".PP")
			m.literal(block...)
			m.line(".PP")
			continue
		}
		for _, l := range block {
			if l == "" {
				m.line(".PP")
				continue
			}
			m.line("%s", roff(l))
		}
	}
}

func (m *man) options(flags []cli.Flag) {
	for _, f := range flags {
		var names []string
		for _, n := range f.Names() {
			dashes := "--"
			if len(n) == 1 {
				dashes = "-"
			}
			names = append(names, `\fB`+roff(dashes+n)+`\fR`)
		}
		usage := f.(cli.DocGenerationFlag).GetUsage()
		value := ""
		if rest, ok := strings.CutPrefix(usage, "`"); ok {
			value, usage, _ = strings.Cut(rest, "`")
			value = ` \fI` + roff(value) + `\fR`
		}
		m.line(".TP")
		m.line("%s%s", strings.Join(names, ", "), value)
		m.line("%s", roff(strings.TrimSpace(usage)))
	}
}

// ending writes the sections at the end of all pages of commands.
func (m *man) ending(others ...string) string {
	m.section("EXIT STATUS")
	m.text("0: done. 1: it failed, or what was checked is not as it should be; one line on stderr says why. " +
		"2: the command line is wrong.")
	m.section("SEE ALSO")
	for i, o := range others {
		name, section, _ := strings.Cut(o, ".")
		comma := " ,"
		if i == len(others)-1 {
			comma = ""
		}
		m.line(".BR %s (%s)%s", roff(name), section, comma)
	}
	return m.String()
}

func manOfApp(app *cli.App) string {
	m := newMan("lanyard", 1, app.Usage)
	m.section("SYNOPSIS")
	m.literal(app.UsageText)
	m.section("DESCRIPTION")
	m.text(app.Description)
	m.section("COMMANDS")
	others := []string{}
	for _, c := range app.Commands {
		m.line(".TP\n\\fB%s\\fR", roff("lanyard "+c.Name))
		m.line("%s:\n.BR %s (1)", roff(c.Usage), roff("lanyard-"+c.Name))
		others = append(others, "lanyard-"+c.Name+".1")
	}
	m.section("OPTIONS")
	m.options(app.Flags)
	m.section("FILES")
	for _, f := range [][2]string{
		{"/etc/lanyard/networks.d", "definitions of networks: lanyard-network(5)"},
		{"/etc/lanyard/host-id", "the host's identity, on machines that share /etc/machine-id"},
		{"/run/lanyard", "records and leases, until the next boot"},
		{"/sys/fs/bpf/lanyard", "pinned programs and maps"},
	} {
		m.line(".TP\n.I %s\n%s", roff(f[0]), roff(f[1]))
	}
	return m.ending(append(others,
		"lanyard-network.5", "lanyard-annotations.7", "lanyard-rootless.7", "lanyard-hook.8")...)
}

// manOfCommand returns the page of a command, with its subcommands.
func manOfCommand(c *cli.Command) string {
	m := newMan("lanyard-"+c.Name, 1, c.Usage)
	m.section("SYNOPSIS")
	synopsis := strings.Split(c.UsageText, "\n")
	for _, s := range c.Subcommands {
		synopsis = append(synopsis, strings.Split(s.UsageText, "\n")...)
	}
	if len(c.Subcommands) > 0 {
		synopsis = synopsis[1:]
	}
	for i, s := range synopsis {
		synopsis[i] = strings.TrimSpace(s)
	}
	m.literal(synopsis...)
	if c.Description != "" {
		m.section("DESCRIPTION")
		m.text(c.Description)
	}
	if len(c.Flags) > 0 {
		m.section("OPTIONS")
		m.options(c.Flags)
	}
	if len(c.Subcommands) > 0 {
		m.section("COMMANDS")
	}
	for _, s := range c.Subcommands {
		m.line(".SS \"%s\"", roff("lanyard "+c.Name+" "+s.Name))
		m.line("%s.", roff(strings.ToUpper(s.Usage[:1])+s.Usage[1:]))
		if s.Description != "" {
			m.line(".PP")
			m.text(s.Description)
		}
		m.options(s.Flags)
	}
	others := []string{"lanyard.1"}
	if c.Name == "network" {
		others = append(others, "lanyard-network.5")
	}
	return m.ending(others...)
}

// property is a field in the JSON Schema of definitions.
type property struct {
	Description string            `json:"description"`
	Default     json.RawMessage   `json:"default"`
	Enum        []json.RawMessage `json:"enum"`
}

// manOfDefinition returns the page of definitions, from their JSON Schema.
func manOfDefinition(t *testing.T) string {
	t.Helper()
	var s struct {
		Description string `json:"description"`
		Defs        map[string]struct {
			Properties json.RawMessage `json:"properties"`
		} `json:"$defs"`
	}
	if err := json.Unmarshal(schema.Network, &s); err != nil {
		t.Fatal(err)
	}
	m := newMan("lanyard-network", 5, "definition of a network")
	m.section("DESCRIPTION")
	m.text(s.Description + "\n\n" +
		`"lanyard network schema" prints the JSON Schema. A field that is left out has its default.`)
	for _, part := range [][2]string{
		{"definition", "FIELDS"}, {"subnet", "FIELDS OF A SUBNET"}, {"route", "FIELDS OF A ROUTE"},
	} {
		m.section(part[1])
		m.fields(t, s.Defs[part[0]].Properties)
	}
	m.section("FILES")
	m.line(".I %s", roff("/etc/lanyard/networks.d/NAME.json"))
	m.section("SEE ALSO")
	m.line(".BR %s (1),\n.BR %s (7)", roff("lanyard-network"), roff("lanyard-annotations"))
	return m.String()
}

// fields writes properties in the order of the schema.
func (m *man) fields(t *testing.T, object json.RawMessage) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(object))
	if _, err := d.Token(); err != nil {
		t.Fatal(err)
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			t.Fatal(err)
		}
		var p property
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		m.line(".TP\n\\fB%s\\fR", roff(fmt.Sprint(name)))
		text := p.Description
		if len(p.Enum) > 0 {
			text += fmt.Sprintf(" One of %s.", strings.ReplaceAll(string(bytes.Join(raw(p.Enum), []byte(", "))), `"`, ""))
		}
		if p.Default != nil {
			text += fmt.Sprintf(" Default: %s.", strings.Trim(string(p.Default), `"`))
		}
		m.line("%s", roff(strings.TrimSpace(text)))
	}
}

func raw(list []json.RawMessage) (out [][]byte) {
	for _, r := range list {
		out = append(out, r)
	}
	return out
}
