package network

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
)

// DecodeAll reads one definition, or a JSON array of them. It does not check values, which
// Validate does. Its errors have the form "field: reason", or "[2]: field: reason" in an
// array. For empty text or white space it returns nil.
func DecodeAll(text []byte) (all []*Definition, err error) {
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, nil
	}
	if !bytes.HasPrefix(bytes.TrimLeft(text, " \t\r\n"), []byte("[")) {
		d, err := decode(text)
		return []*Definition{d}, err
	}
	var raw []json.RawMessage
	if err := json.Unmarshal(text, &raw); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			err = fmt.Errorf("line %d: %w", lineNumber(text, syntax.Offset), err)
		}
		return nil, err
	}
	for i, one := range raw {
		d, err := decode(one)
		if err != nil {
			return nil, fmt.Errorf("[%d]: %w", i, err)
		}
		all = append(all, d)
	}
	return all, nil
}

// decode reads one definition. It is stricter than encoding/json, which accepts unknown
// fields, duplicate fields and fields in another case: a typing error in a hand-written file
// must not start a container on a network that differs from the described one. Its errors
// have the form "field: reason".
func decode(text []byte) (*Definition, error) {
	var d Definition
	if err := decodeObject("", text, reflect.ValueOf(&d).Elem()); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return nil, fmt.Errorf("line %d: %w", lineNumber(text, syntax.Offset), err)
		}
		return nil, err
	}
	return &d, nil
}

// lineNumber returns the line, counted from 1, of the byte at offset.
func lineNumber(text []byte, offset int64) int {
	return 1 + bytes.Count(text[:min(int(offset), len(text))], []byte("\n"))
}

// decodeObject reads a JSON object into a struct. path is the object's name in errors, empty
// for the whole file.
func decodeObject(path string, text []byte, into reflect.Value) error {
	// The whole text first: then the RawMessages below have no syntax errors, and the
	// offset of an error found here is that in the file.
	if !json.Valid(text) {
		var any json.RawMessage
		return json.Unmarshal(text, &any)
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return errors.New(strings.TrimPrefix(path+": is not a JSON object", ": "))
	}
	fields, names := fieldsOf(into)
	seen := map[string]bool{}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return err
		}
		name := t.(string) // in valid JSON, a field's name is a string
		at := strings.TrimPrefix(path+"."+name, ".")
		field, known := fields[name]
		switch {
		case !known:
			return fmt.Errorf("%s: is not a field%s", Clip(at), didYouMean(name, names))
		case seen[name]:
			return fmt.Errorf("%s: occurs twice: remove one", at)
		}
		seen[name] = true
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return err
		}
		if err := decodeField(at, raw, field); err != nil {
			return err
		}
	}
	return nil
}

func decodeField(at string, raw json.RawMessage, into reflect.Value) error {
	if isObjects(into.Type()) {
		return decodeObjects(at, raw, into)
	}
	if err := json.Unmarshal(raw, into.Addr().Interface()); err != nil {
		return fmt.Errorf("%s: %s", at, reason(err))
	}
	return nil
}

// isObjects reports whether a field is a list of JSON objects: of structs that do not
// implement encoding.TextUnmarshaler.
func isObjects(t reflect.Type) bool {
	return t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct &&
		!reflect.PointerTo(t.Elem()).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

func decodeObjects(at string, raw json.RawMessage, into reflect.Value) error {
	var objects []json.RawMessage
	if err := json.Unmarshal(raw, &objects); err != nil {
		return fmt.Errorf("%s: %s", at, reason(err))
	}
	if len(objects) == 0 {
		return nil // as if the field were missing
	}
	list := reflect.MakeSlice(into.Type(), len(objects), len(objects))
	for i, o := range objects {
		if err := decodeObject(fmt.Sprintf("%s[%d]", at, i), o, list.Index(i)); err != nil {
			return err
		}
	}
	into.Set(list)
	return nil
}

// reason returns what is wrong with a value, without the names of Go types and functions.
func reason(err error) string {
	var kind *json.UnmarshalTypeError
	if errors.As(err, &kind) {
		return fmt.Sprintf("a JSON %s is not allowed here", kind.Value)
	}
	for call, what := range map[string]string{
		"ParseAddr(":         "an address such as 192.168.50.1",
		"netip.ParsePrefix(": "a block of addresses such as 192.168.50.0/24",
	} {
		// net/netip quotes the word that it cannot parse.
		if rest, is := strings.CutPrefix(err.Error(), call); is {
			if word, err := strconv.QuotedPrefix(rest); err == nil {
				return fmt.Sprintf("%s is not %s", word, what)
			}
		}
	}
	return err.Error()
}

// fieldsOf returns a struct's fields by their JSON names, and these names in the order of
// the struct.
func fieldsOf(v reflect.Value) (fields map[string]reflect.Value, names []string) {
	fields = map[string]reflect.Value{}
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		fields[name], names = v.Field(i), append(names, name)
	}
	return fields, names
}

// encode writes a definition in the format of its file: indented, fields in the struct's
// order, maps sorted, so that two versions of a file can be compared line by line.
func encode(w io.Writer, d *Definition) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(d)
}
