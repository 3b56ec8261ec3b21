package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// tags are the build tags for the tests: all that exist.
const tags = "vm,failpoint,urfave_cli_no_docs"

// compileTests compiles the tests of the matching packages into dir, with all tags and without cgo.
// It returns a step for each package that has tests.
func compileTests(ctx context.Context, dir string, patterns []string, o options) ([]Step, error) {
	all := len(patterns) == 0
	if all {
		patterns = []string{"./..."}
	}
	packages, err := listTests(ctx, tags, patterns)
	if err != nil {
		return nil, err
	}
	if all {
		packages = slices.DeleteFunc(packages, func(p goPackage) bool { return !p.kernelMatters() })
	}
	packages, skipped, err := selectNative(ctx, packages, o.native)
	if err != nil {
		return nil, err
	}
	var steps []Step
	for i, p := range packages {
		// Numbered, since two packages may have the same last path element.
		binary := filepath.Join(dir, fmt.Sprintf("%03d-%s.test", i, filepath.Base(p.Dir)))
		args := []string{"test", "-c", "-tags=" + tags, "-ldflags=-s -w", "-o", binary, p.ImportPath}
		cmd := goCommand(ctx, args...)
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		if err := cmd.Run(); err != nil {
			return nil, fmt.Errorf("compile the tests of %s: %w", p.ImportPath, err)
		}
		step := Step{Package: p.ImportPath, Dir: p.Dir, Args: []string{
			binary, "-test.v", "-test.paniconexit0", "-test.timeout=" + o.perTest.String(),
		}}
		if o.pattern != "" {
			step.Args = append(step.Args, "-test.run="+o.pattern)
		}
		if names := skipped[p.ImportPath]; len(names) > 0 {
			step.Args = append(step.Args, "-test.skip=^("+strings.Join(names, "|")+")$")
		}
		steps = append(steps, step)
	}
	if len(steps) == 0 {
		return nil, fmt.Errorf("no package in %q has tests", patterns)
	}
	return steps, nil
}

type goPackage struct {
	ImportPath, Dir           string
	TestGoFiles, XTestGoFiles []string
	TestImports, XTestImports []string
}

// labs is the package with which tests make namespaces, links and containers.
const (
	goModule = "github.com/lanyard-net/lanyard/"
	labs     = goModule + "testenv"
)

// kernelMatters reports whether the package's tests use testenv or a package below it, and so more
// of the kernel than other programs. The results of all other tests are the same on every kernel.
func (p goPackage) kernelMatters() bool {
	return p.ImportPath == labs || slices.ContainsFunc(slices.Concat(p.TestImports, p.XTestImports),
		func(path string) bool { return path == labs || strings.HasPrefix(path, labs+"/") })
}

func listTests(ctx context.Context, tags string, patterns []string) ([]goPackage, error) {
	cmd := goCommand(ctx, append([]string{"list", "-tags=" + tags,
		"-json=ImportPath,Dir,TestGoFiles,XTestGoFiles,TestImports,XTestImports"}, patterns...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list packages: %w", err)
	}
	var packages []goPackage
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return packages, nil
		} else if err != nil {
			return nil, err
		}
		if len(p.TestGoFiles)+len(p.XTestGoFiles) > 0 {
			packages = append(packages, p)
		}
	}
}

// selectNative returns the names of the tests, by package, that need no virtual machine (their files
// lack the tag vm), unless selected matches their "hook/link.TestName". It returns the packages that have
// other tests.
func selectNative(
	ctx context.Context, packages []goPackage, selected *regexp.Regexp,
) (rest []goPackage, skipped map[string][]string, err error) {
	var paths []string
	for _, p := range packages {
		paths = append(paths, p.ImportPath)
	}
	native, err := listTests(ctx, strings.TrimPrefix(tags, "vm,"), paths)
	if err != nil {
		return nil, nil, err
	}
	files := map[string]bool{}
	for _, p := range native {
		for _, name := range p.files() {
			files[name] = true
		}
	}
	skipped = map[string][]string{}
	for _, p := range packages {
		others := 0
		for _, file := range p.files() {
			found, err := testsIn(file)
			if err != nil {
				return nil, nil, err
			}
			for _, name := range found {
				if files[file] && !selected.MatchString(strings.TrimPrefix(p.ImportPath, goModule)+"."+name) {
					skipped[p.ImportPath] = append(skipped[p.ImportPath], name)
				} else {
					others++
				}
			}
		}
		if others > 0 {
			rest = append(rest, p)
		}
	}
	return rest, skipped, nil
}

// files returns the paths of the package's test files.
func (p goPackage) files() (paths []string) {
	for _, name := range slices.Concat(p.TestGoFiles, p.XTestGoFiles) {
		paths = append(paths, filepath.Join(p.Dir, name))
	}
	return paths
}

// testsIn returns the names of the tests in a Go file.
func testsIn(path string) (names []string, err error) {
	f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	for _, d := range f.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && strings.HasPrefix(fn.Name.Name, "Test") &&
			fn.Name.Name != "TestMain" {
			names = append(names, fn.Name.Name)
		}
	}
	return names, nil
}

func goCommand(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	return cmd
}

// runTest runs one package's tests inside the virtual machine. It prints the output of tests that
// failed or were skipped, and one line for the package.
func runTest(job Job, s Step, out io.Writer) bool {
	report := &report{out: out, all: job.Verbose}
	start := time.Now()
	code := runStep(job, s, report)
	ok := code == 0
	report.close(!ok)
	word := "ok  "
	if !ok {
		word = "FAIL"
	}
	line := fmt.Sprintf("%s %-48s %3d passed", word, s.Package, report.passed)
	if report.skipped > 0 {
		line += fmt.Sprintf(", %d skipped", report.skipped)
	}
	if report.failed > 0 {
		line += fmt.Sprintf(", %d failed", report.failed)
	}
	if !ok && report.failed == 0 {
		line += ", exit status " + strconv.Itoa(code)
	}
	fmt.Fprintf(out, "%s  %.1fs  on %s\n", line, time.Since(start).Seconds(), strings.TrimSpace(job.Release+" "+job.Suite))
	for _, test := range report.slow {
		fmt.Fprintf(out, "     slow: %s\n", test)
	}
	return ok
}
