package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v3"
)

const (
	flagConfig = "config"
	// maxConfigBytes is far beyond what all settings of all roles take.
	maxConfigBytes = 1 << 20
	// maxConfigErrors are told at once.
	maxConfigErrors = 20
)

func configFlag() cli.Flag {
	return stringFlag(flagConfig, "", "`FILE` (YAML) with settings for what neither flag nor environment gives; read again on SIGHUP")
}

// configFile is what a file says: a section for each role, in it the names of
// that role's flags, and their values as they would stand on the command line.
type configFile struct {
	path     string
	sections map[string]map[string]fileValue // by role and name
}

// fileValue is one value, or the items of a list, and the line of its key.
type fileValue struct {
	texts []string
	list  bool
	line  int
}

// readConfigFile reads a file whose every section and key must be known. What
// is wrong is told with its line, all of it at once.
func readConfigFile(path string) (*configFile, error) {
	raw, err := readBounded(path)
	if err != nil {
		return nil, misused("--%s: %v; name a file that can be read", flagConfig, err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(raw, &doc); err != nil {
		return nil, misused("%s", yamlError(path, raw, err))
	}
	f := &configFile{path: path, sections: make(map[string]map[string]fileValue)}
	if doc.Kind == 0 {
		return f, nil
	}
	errs := f.readSections(doc.Content[0])
	if len(errs) > maxConfigErrors {
		errs = append(errs[:maxConfigErrors], fmt.Errorf("%s: and %d more", path, len(errs)-maxConfigErrors))
	}
	if len(errs) > 0 {
		return nil, misuse{errors.Join(errs...).Error()}
	}
	return f, nil
}

func readBounded(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	raw, err := io.ReadAll(io.LimitReader(file, maxConfigBytes+1))
	if err == nil && len(raw) > maxConfigBytes {
		err = fmt.Errorf("%s: more than %d bytes", path, maxConfigBytes)
	}
	return raw, err
}

// yamlError says in which line of raw the error is.
func yamlError(path string, raw []byte, err error) string {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	var line int
	if _, serr := fmt.Sscanf(text, "line %d:", &line); serr == nil {
		_, text, _ = strings.Cut(text, ": ")
		path = fmt.Sprintf("%s:%d", path, brokenLine(raw, line))
	}
	return fmt.Sprintf("%s: %s; quote texts that begin with [ { * & ! | > %% @ or have \": \" in them", path, text)
}

// brokenLine is the one after the last lines that can be read. The line that the
// parser tells is near, but may be one off.
func brokenLine(raw []byte, told int) int {
	const near = 3
	lines := bytes.SplitAfter(raw, []byte("\n"))
	for n := min(told+near, len(lines)) - 1; n > max(told-near, 0); n-- {
		if yaml.Unmarshal(bytes.Join(lines[:n], nil), new(yaml.Node)) == nil {
			return n + 1
		}
	}
	return told
}

func (f *configFile) at(line int) string { return fmt.Sprintf("%s:%d", f.path, line) }

func (f *configFile) readSections(root *yaml.Node) (errs []error) {
	if root.Kind != yaml.MappingNode {
		return []error{fmt.Errorf("%s: want sections, such as indexer: with its settings below, indented", f.at(root.Line))}
	}
	for n := 0; n < len(root.Content); n += 2 {
		key, body := root.Content[n], root.Content[n+1]
		r, known := roleNamed(key.Value)
		switch {
		case !known:
			errs = append(errs, fmt.Errorf("%s: unknown section %q; did you mean %q? Sections are %s", f.at(key.Line), key.Value, nearest(roleNames(), key.Value), strings.Join(roleNames(), ", ")))
		case f.sections[r.name] != nil:
			errs = append(errs, fmt.Errorf("%s: section %s is there twice; put its settings into one", f.at(key.Line), r.name))
		default:
			section := make(map[string]fileValue)
			f.sections[r.name] = section
			errs = append(errs, f.readSection(r, body, section)...)
		}
	}
	return errs
}

func (f *configFile) readSection(r role, body *yaml.Node, into map[string]fileValue) (errs []error) {
	if body.Kind == yaml.ScalarNode && body.Tag == "!!null" {
		return nil
	}
	if body.Kind != yaml.MappingNode {
		return []error{fmt.Errorf("%s: section %s: want settings, such as %s: info", f.at(body.Line), r.name, flagLogLevel)}
	}
	flags := r.flags()
	for n := 0; n < len(body.Content); n += 2 {
		key, value := body.Content[n], body.Content[n+1]
		name := key.Value
		v, err := readValue(flags[name], value)
		switch _, twice := into[name]; {
		case flags[name] == nil:
			err = unknownKey(r, name)
		case twice:
			err = fmt.Errorf("%s.%s is there twice, first in line %d; remove one", r.name, name, into[name].line)
		case err != nil:
			err = fmt.Errorf("%s.%s: %w", r.name, name, err)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", f.at(key.Line), err))
			continue
		}
		v.line = key.Line
		into[name] = v
	}
	return errs
}

// unknownKey names the nearest key of the section, and the role that has it.
func unknownKey(r role, name string) error {
	if name == flagConfig {
		return fmt.Errorf("%s.%s: a file names no other file; give --%s or %s", r.name, name, flagConfig, env(flagConfig)[0])
	}
	text := fmt.Sprintf("unknown key %q in section %s; did you mean %q?", name, r.name, nearest(r.names(), name))
	for _, other := range roles() {
		if other.flags()[name] != nil {
			return fmt.Errorf("%s It is a key of section %s", text, other.name)
		}
	}
	return errors.New(text)
}

// readValue takes texts as they are written: what they mean the flag knows.
func readValue(f cli.Flag, n *yaml.Node) (fileValue, error) {
	_, list := f.(*cli.StringSliceFlag)
	switch {
	case n.Kind == yaml.ScalarNode && n.Tag != "!!null":
		return fileValue{texts: []string{n.Value}, list: list}, nil
	case n.Kind == yaml.SequenceNode && list:
		v := fileValue{list: true}
		for _, item := range n.Content {
			if item.Kind != yaml.ScalarNode || item.Tag == "!!null" {
				return v, errors.New("give a list of texts")
			}
			v.texts = append(v.texts, item.Value)
		}
		return v, nil
	case n.Kind == yaml.AliasNode:
		return fileValue{}, errors.New("aliases are not taken; write the value, in quotes if it begins with *")
	case n.Kind == yaml.ScalarNode:
		return fileValue{}, errors.New(`has no value; give one, or "" for an empty text, or remove the line`)
	}
	return fileValue{}, fmt.Errorf("give %s", valueKind(f))
}

// nearest is the known word most like another one.
func nearest(known []string, word string) string {
	flags := make([]cli.Flag, len(known))
	for n, k := range known {
		flags[n] = &cli.StringFlag{Name: k}
	}
	if found := strings.TrimLeft(cli.SuggestFlag(flags, word, true), "-"); found != "" || len(known) == 0 {
		return found
	}
	return slices.Min(known)
}

// valueKind says in words what a flag takes.
func valueKind(f cli.Flag) string {
	switch f.(type) {
	case *cli.BoolFlag:
		return "true or false"
	case *cli.IntFlag, *cli.Int64Flag:
		return "a whole number"
	case *cli.Uint64Flag, *cli.UintFlag:
		return "a whole number, 0 or more"
	case *cli.Float64Flag:
		return "a number"
	case *cli.DurationFlag:
		return "a time with its unit, such as 500ms, 10s or 1h30m"
	case *cli.StringSliceFlag:
		return "a list of texts"
	}
	return "a text"
}
