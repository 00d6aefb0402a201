package openapi_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// rooms are where handlers register what they serve. The publisher's side has
// IPNI's own specification, and a browser needs none.
var rooms = []string{"announce", "api", "assigner", "cmd/signpost", "indexer", "ingest", "store"}

// elsewhere are routes that are no part of the APIs.
var elsewhere = map[string]string{
	"/encrypted/":            "404 with a reason: reader privacy is not served",
	"/metadata/":             "the same",
	"/index.html":            "another name of /",
	"/metrics/":              "the reference's name of /metrics",
	"/ipni/v1/ad/":           "a publisher's",
	"/.well-known/libp2p/":   "a publisher's",
	"/.well-known/libp2p":    "a publisher's",
	"/ipfs/":                 "a publisher's",
	"/routing/v1/providers":  "400: no CID",
	"/routing/v1/providers/": "the same",
}

// registered are the functions that take a pattern first: those of a mux, and what
// the handlers call theirs.
var registered = map[string]bool{"Handle": true, "HandleFunc": true, "route": true, "batch": true, "get": true, "put": true}

// source is the Go code of the rooms, without tests.
type source struct {
	files     map[*ast.File]string // and its package
	constants map[string]ast.Expr  // by package.name
}

func readSource(t *testing.T) source {
	t.Helper()
	s := source{make(map[*ast.File]string), make(map[string]ast.Expr)}
	for _, room := range rooms {
		err := filepath.WalkDir(filepath.Join("../..", room), func(name string, d fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
				return err
			}
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
			if err == nil {
				s.add(f)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (s source) add(f *ast.File) {
	s.files[f] = f.Name.Name
	for _, decl := range f.Decls {
		group, ok := decl.(*ast.GenDecl)
		if !ok || group.Tok != token.CONST {
			continue
		}
		for _, spec := range group.Specs {
			v := spec.(*ast.ValueSpec)
			for i, name := range v.Names {
				if i < len(v.Values) {
					s.constants[f.Name.Name+"."+name.Name] = v.Values[i]
				}
			}
		}
	}
}

// text is the value of a constant expression in a package, if it is a string.
func (s source) text(pkg string, e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		v, err := strconv.Unquote(e.Value)
		return v, err == nil && e.Kind == token.STRING
	case *ast.BinaryExpr:
		x, okX := s.text(pkg, e.X)
		y, okY := s.text(pkg, e.Y)
		return x + y, okX && okY && e.Op == token.ADD
	case *ast.Ident:
		v, ok := s.constants[pkg+"."+e.Name]
		if !ok {
			return "", false
		}
		return s.text(pkg, v)
	case *ast.SelectorExpr:
		if x, ok := e.X.(*ast.Ident); ok {
			return s.text(x.Name, &ast.Ident{Name: e.Sel.Name})
		}
	}
	return "", false
}

// routes calls found with each pattern that is registered.
func (s source) routes(found func(pattern string)) {
	for f, pkg := range s.files {
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) < 2 {
				return true
			}
			name := ""
			switch fun := call.Fun.(type) {
			case *ast.Ident:
				name = fun.Name
			case *ast.SelectorExpr:
				name = fun.Sel.Name
			}
			if pattern, ok := s.text(pkg, call.Args[0]); ok && registered[name] {
				found(pattern)
			}
			return true
		})
	}
}

var placeholder = regexp.MustCompile(`{[^}]*}`)

// TestEveryRouteIsDocumented reads the code for what is registered.
func TestEveryRouteIsDocumented(t *testing.T) {
	var documented []string
	for path := range load(t).Paths.Map() {
		documented = append(documented, placeholder.ReplaceAllString(path, "{}"))
	}
	within := func(pattern string) bool {
		for _, path := range documented {
			rest, below := strings.CutPrefix(path, pattern)
			if path == pattern || below && strings.HasSuffix(pattern, "/") && pattern != "/" && rest != "" {
				return true
			}
		}
		return false
	}
	count := 0
	readSource(t).routes(func(pattern string) {
		method, path, ok := strings.Cut(pattern, " ")
		if !ok {
			path, method = pattern, ""
		}
		if !strings.HasPrefix(path, "/") || method == "OPTIONS" {
			return
		}
		count++
		path = placeholder.ReplaceAllString(strings.TrimSuffix(path, "{$}"), "{}")
		if elsewhere[path] == "" && !within(path) {
			t.Errorf("%s is registered and not documented", pattern)
		}
	})
	if count < 60 {
		t.Errorf("found %d routes only: they are registered in another way now", count)
	}
}
