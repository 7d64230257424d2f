package api

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	_ "embed" // the pages
	"encoding/base64"
	"fmt"
	"html/template"
	"maps"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

//go:embed docs.html
var docsHTML string

//go:embed home.html
var homeHTML string

//go:embed docs.css
var pageStyle string

// pageCSP lets a page of ours show its own style and nothing else: no script, no image, nothing from elsewhere.
func pageCSP() string {
	sum := sha256.Sum256([]byte(pageStyle))
	return "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; style-src 'sha256-" +
		base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// homePage says that the brain runs, and what is wrong with it.
func homePage(version, wrong string) ([]byte, error) {
	return render("home", homeHTML, map[string]any{"Style": template.CSS(pageStyle), "Version": version, "Wrong": wrong}) //nolint:gosec // ours
}

func render(name, text string, data any) ([]byte, error) {
	t, err := template.New(name).Parse(text)
	if err != nil {
		return nil, fmt.Errorf("parse page %s: %w", name, err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, data); err != nil {
		return nil, fmt.Errorf("render page %s: %w", name, err)
	}
	return b.Bytes(), nil
}

type docsOperation struct {
	ID, Method, Path, Summary, Description string
	Parameters                             []docsField
	Body                                   *docsType
	Responses                              []docsResponse
}

type docsField struct {
	Name, In, Text string
	Required       bool
	Type           docsType
}

type docsResponse struct {
	Status, Text string
	Type         *docsType
}

// docsType is a type in words, and the schema that it ends in.
type docsType struct{ Before, Schema string }

// String is the type in words alone.
func (t docsType) String() string { return t.Before + t.Schema }

type docsGroup struct {
	Name, Anchor string
	Operations   []docsOperation
}

type docsSchema struct {
	Name, Text string
	Fields     []docsField
}

// docsPage is the API's documentation for people, made of the document for machines.
func docsPage(doc *huma.OpenAPI) ([]byte, error) {
	page := struct {
		Title, Description, OpenAPI string
		Style                       template.CSS
		Groups                      []docsGroup
		Schemas                     []docsSchema
	}{OpenAPI: doc.OpenAPI, Style: template.CSS(pageStyle)} //nolint:gosec // ours
	page.Title, page.Description = doc.Info.Title+" "+doc.Info.Version, doc.Info.Description
	groups := map[string]*docsGroup{}
	for _, path := range slices.Sorted(maps.Keys(doc.Paths)) {
		for _, op := range operations(doc.Paths[path]) {
			name := "other"
			if len(op.Tags) > 0 {
				name = op.Tags[0]
			}
			if groups[name] == nil {
				groups[name] = &docsGroup{Name: name, Anchor: "tag-" + strings.ReplaceAll(name, " ", "-")}
			}
			groups[name].Operations = append(groups[name].Operations, docsOf(op))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		page.Groups = append(page.Groups, *groups[name])
	}
	if doc.Components != nil && doc.Components.Schemas != nil {
		schemas := doc.Components.Schemas.Map()
		for _, name := range slices.Sorted(maps.Keys(schemas)) {
			page.Schemas = append(page.Schemas, docsSchema{Name: name, Text: schemas[name].Description, Fields: fieldsOf(schemas[name])})
		}
	}
	return render("docs", docsHTML, page)
}

func operations(item *huma.PathItem) []*huma.Operation {
	all := []*huma.Operation{item.Get, item.Post, item.Put, item.Patch, item.Delete}
	return slices.DeleteFunc(all, func(op *huma.Operation) bool { return op == nil || op.Hidden })
}

func docsOf(op *huma.Operation) docsOperation {
	d := docsOperation{ID: op.OperationID, Method: op.Method, Path: op.Path, Summary: op.Summary, Description: op.Description}
	for _, p := range op.Parameters {
		f := docsField{Name: p.Name, In: p.In, Text: p.Description, Required: p.Required, Type: typeOf(p.Schema)}
		if f.Text == "" && p.Schema != nil {
			f.Text = p.Schema.Description
		}
		d.Parameters = append(d.Parameters, f)
	}
	if op.RequestBody != nil {
		d.Body = contentType(op.RequestBody.Content)
	}
	for _, status := range slices.SortedFunc(maps.Keys(op.Responses), strings.Compare) {
		r := op.Responses[status]
		d.Responses = append(d.Responses, docsResponse{Status: status, Text: r.Description, Type: contentType(r.Content)})
	}
	return d
}

func contentType(content map[string]*huma.MediaType) *docsType {
	for _, kind := range slices.Sorted(maps.Keys(content)) {
		if s := content[kind].Schema; s != nil {
			t := typeOf(s)
			return &t
		}
	}
	return nil
}

func fieldsOf(s *huma.Schema) []docsField {
	var fields []docsField
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		if name == "$schema" {
			continue
		}
		p := s.Properties[name]
		fields = append(fields, docsField{Name: name, Text: p.Description, Type: typeOf(p)})
	}
	return fields
}

func typeOf(s *huma.Schema) docsType {
	switch {
	case s == nil:
		return docsType{Before: "any"}
	case s.Ref != "":
		return docsType{Schema: s.Ref[strings.LastIndex(s.Ref, "/")+1:]}
	case s.Type == huma.TypeArray:
		t := typeOf(s.Items)
		return docsType{Before: "list of " + t.Before, Schema: t.Schema}
	}
	words := cmp.Or(s.Type, "any")
	if s.Format != "" {
		words += " (" + s.Format + ")"
	}
	if len(s.Enum) > 0 {
		names := make([]string, len(s.Enum))
		for i, v := range s.Enum {
			names[i] = fmt.Sprint(v)
		}
		words = strings.Join(names, ", ")
	}
	if s.Nullable {
		words += " or null"
	}
	return docsType{Before: words}
}
