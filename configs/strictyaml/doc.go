// Package strictyaml reads a document of YAML into Go structs, and refuses what
// YAML would bend until it fits: 010 as 8, 3072.9 as 3072, yes as true, a number
// where text belongs, a span of time without its unit, anchors, aliases, merges,
// tags, a name that appears twice or that no field has. Nothing is read and
// ignored.
//
// go.yaml.in/yaml/v3 parses and decodes. Beside it walks a walker of ours, over
// the nodes and the types at once, which notes the line of every field and all
// that is wrong:
//
//	bytes ─► yaml: nodes ─┬─► walker, with the types ─► lines of the fields, faults
//	                      └─► yaml: values, KnownFields
//
// So all faults of a document are told at once, each with its line, its path
// (issuers[0].publish[1].file) and the way to mend it. What is not YAML at all is
// told in yaml's words, with the line at which yaml noticed, which yaml itself
// does not tell, and with what most often leads there.
//
// Fields are those with a tag `yaml:"name"`, of structs, pointers, slices, strings,
// bools and integers, and of four types for what YAML lacks: Duration, Date, JSON
// and Secret.
//
// The package knows nothing of keyturn, and imports nothing of it.
package strictyaml
