package schema

import (
	"strings"
	"testing"
)

const (
	mhText = "EiBi5TynP6kRlf7E9LQdPXhlBF3Tx6iAXBlB3GbhdnFsNA"
	cidOne = "baguqeeramgp3qefa6uni4or3ya4ctgkhyizglja3vir45yrzyqdffdcisjvq"
)

// jsonShapes are chunks in dag-json: fast ones are read by the walk, good ones
// are accepted. $E is an entry with the multihash $M, $N a link with the CID $C.
var jsonShapes = []struct {
	name       string
	text       string
	fast, good bool
}{
	{"canonical", `{"Entries":[$E,$E],"Next":$N}`, true, true},
	{"no next", `{"Entries":[$E]}`, true, true},
	{"empty", `{"Entries":[]}`, true, true},
	{"next first", `{"Next":$N,"Entries":[$E]}`, true, true},
	{"white space", " {\t\"Entries\" : [ $E , $E\r\n,$E ] ,\n\"Next\" : $N } \n", true, true},
	{"white space in an entry", `{"Entries":[ { "/" : { "bytes" : "$M" } } ]}`, true, true},
	{"white space in a link", `{"Entries":[],"Next":{ "/" : "$C" } }`, true, true},
	{"padded", `{"Entries":[{"/":{"bytes":"$M=="}},$E]}`, true, true},
	{"identity", `{"Entries":[{"/":{"bytes":"AA1pZGVudGl0eSBkYXRh"}}]}`, true, true},
	{"empty bytes", `{"Entries":[{"/":{"bytes":""}}]}`, true, true},
	{"trailing bits", `{"Entries":[{"/":{"bytes":"EiBi5TynP6kRlf7E9LQdPXhlBF3Tx6iAXBlB3GbhdnFsNB"}},$E]}`, true, true},
	{"no comma after the last in a run", `{"Entries":[$E,$E,$E]}`, true, true},
	{"escaped key", `{"\u0045ntries":[$E]}`, false, true},
	{"escaped slash", `{"Entries":[{"\/":{"bytes":"$M"}}]}`, false, true},
	{"escaped base64", `{"Entries":[{"/":{"bytes":"AA1pZGVudGl0eSBk\u0059XRh"}}]}`, false, true},
	{"escaped line break in base64", `{"Entries":[{"/":{"bytes":"AA1pZGVu\ndGl0eSBkYXRh"}}]}`, false, true},
	{"escaped link", `{"Entries":[],"Next":{"/":"\u0062` + cidOne[1:] + `"}}`, false, true},
	{"comma after the last entry", `{"Entries":[$E,]}`, false, true},
	{"comma after the last key", `{"Entries":[$E],}`, false, true},
	{"zeros at the end", "{\"Entries\":[$E]}\x00\x00", false, true},
	{"link in upper case", `{"Entries":[],"Next":{"/":"BAFYREIFEHBLHXVSLTH5TK3CCAG7SPYDHMD7R3R3BDCONMOD6NYYOLLK2DI"}}`, true, true},
	{"CIDv0 link", `{"Entries":[],"Next":{"/":"QmUzhQHKMcUKNgvQraCSVhfiNK2aULiRQM1CrErSgXjxkj"}}`, true, true},

	{"nothing", ``, false, false},
	{"list", `[]`, false, false},
	{"empty map", `{}`, false, false},
	{"next only", `{"Next":$N}`, false, false},
	{"entries twice", `{"Entries":[],"Entries":[]}`, false, false},
	{"next twice", `{"Entries":[],"Next":$N,"Next":$N}`, false, false},
	{"unknown key", `{"Entries":[],"Other":[]}`, false, false},
	{"more after the node", `{"Entries":[]}{}`, false, false},
	{"unclosed", `{"Entries":[$E]`, false, false},
	{"unclosed list", `{"Entries":[$E`, false, false},
	{"unclosed string", `{"Entries":[{"/":{"bytes":"$M`, false, false},
	{"no comma", `{"Entries":[$E $E]}`, false, false},
	{"no colon", `{"Entries"[]}`, false, false},
	{"comma first", `{"Entries":[,$E]}`, false, false},
	{"null entries", `{"Entries":null}`, false, false},
	{"null entry", `{"Entries":[null]}`, false, false},
	{"null next", `{"Entries":[],"Next":null}`, false, false},
	{"bytes as next", `{"Entries":[],"Next":$E}`, false, false},
	{"link as entry", `{"Entries":[$N]}`, false, false},
	{"text as entry", `{"Entries":["$M"]}`, false, false},
	{"second key in an entry", `{"Entries":[{"/":{"bytes":"$M"},"x":1}]}`, false, false},
	{"second key in bytes", `{"Entries":[{"/":{"bytes":"$M","x":1}}]}`, false, false},
	{"second key in a link", `{"Entries":[],"Next":{"/":"$C","x":1}}`, false, false},
	{"not base64", `{"Entries":[{"/":{"bytes":"$M!!"}}]}`, false, false},
	{"not base64, 46 characters", `{"Entries":[{"/":{"bytes":"EiBi5TynP6kRlf7E9LQdPXhl_F3Tx6iAXBlB3GbhdnFsNA"}},$E]}`, false, false},
	{"URL base64", `{"Entries":[{"/":{"bytes":"EiBi5TynP6kRlf7E9LQdPXhlBF3Tx6iAXBlB3GbhdnFs-_"}},$E]}`, false, false},
	{"one character", `{"Entries":[{"/":{"bytes":"A"}}]}`, false, false},
	{"padding too short", `{"Entries":[{"/":{"bytes":"$M="}}]}`, false, false},
	{"line break in base64", "{\"Entries\":[{\"/\":{\"bytes\":\"AA1p\nZGVu\"}}]}", false, false},
	{"not a CID", `{"Entries":[],"Next":{"/":"nope"}}`, false, false},
	{"empty CID", `{"Entries":[],"Next":{"/":""}}`, false, false},
	{"empty link", `{"Entries":[],"Next":{}}`, false, false},
	{"number as entry", `{"Entries":[1]}`, false, false},
	{"fraction as entry", `{"Entries":[1.5]}`, false, false},
	{"bool as entry", `{"Entries":[true]}`, false, false},
	{"long CID in short text", `{"Entries":[],"Next":{"/":"uAVUAlgEB` + strings.Repeat("AAAA", 50) + `"}}`, false, false},
	{"long CID", `{"Entries":[],"Next":{"/":"b` + strings.Repeat("a", 400) + `"}}`, false, false},
}

func fillShape(text string) []byte {
	return []byte(strings.NewReplacer("$E", `{"/":{"bytes":"`+mhText+`"}}`, "$M", mhText,
		"$N", `{"/":"`+cidOne+`"}`, "$C", cidOne).Replace(text))
}

func TestFastAndPlainAgreeOnDagJSON(t *testing.T) {
	d := NewChunkDecoder(DefaultLimits)
	for _, tt := range jsonShapes {
		t.Run(tt.name, func(t *testing.T) {
			block := fillShape(tt.text)
			_, _, err := decodeBoth(t, d, LinkOf(DagJSON, block), block)
			if (err == nil) != tt.good {
				t.Errorf("%s: %v", block, err)
			}
			if usesWalk(d, DagJSON, block) != tt.fast {
				t.Errorf("%s: fast is %t", block, !tt.fast)
			}
			ref, refErr := referenceDecode[referenceChunk](DagJSON, "EntryChunk", block)
			if (refErr == nil) != tt.good && (err == nil || !stricter(err)) {
				t.Errorf("%s: reference: %v, %v", block, ref, refErr)
			}
		})
	}
}
