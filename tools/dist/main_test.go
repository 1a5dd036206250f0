package main_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	dist "github.com/valetkey/valetkey/tools/dist"
)

var (
	modified = time.Unix(1_700_000_000, 0).UTC()
	list     = []dist.File{{Name: "valetkey", Mode: 0o755, Content: []byte("program")}, {Name: "LICENSE", Mode: 0o644, Content: []byte("license")}}
)

func TestTarGz(t *testing.T) {
	var first, second bytes.Buffer
	turned := slices.Clone(list)
	slices.Reverse(turned)
	if err := dist.TarGz(&first, "v", modified, list); err != nil {
		t.Fatal(err)
	}
	if err := dist.TarGz(&second, "v", modified, turned); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("the order of the files changes the archive")
	}
	unpacked, err := gzip.NewReader(&first)
	if err != nil {
		t.Fatal(err)
	}
	if !unpacked.ModTime.IsZero() {
		t.Errorf("a time of the compression: %v", unpacked.ModTime)
	}
	archive := tar.NewReader(unpacked)
	for _, want := range []dist.File{list[1], list[0]} {
		header, err := archive.Next()
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(archive)
		if err != nil || string(content) != string(want.Content) {
			t.Errorf("%s: %q, %v", want.Name, content, err)
		}
		if header.Name != "v/"+want.Name || header.Mode != want.Mode || header.Uid != 0 || header.Gid != 0 || header.Uname+header.Gname != "" || !header.ModTime.Equal(modified) {
			t.Errorf("%+v", header)
		}
	}
	if _, err := archive.Next(); err != io.EOF {
		t.Errorf("more files: %v", err)
	}
}

func TestZip(t *testing.T) {
	var out bytes.Buffer
	if err := dist.Zip(&out, "v", modified, list); err != nil {
		t.Fatal(err)
	}
	archive, err := zip.NewReader(bytes.NewReader(out.Bytes()), int64(out.Len()))
	if err != nil {
		t.Fatal(err)
	}
	if len(archive.File) != 2 || archive.File[0].Name != "v/LICENSE" || archive.File[1].Name != "v/valetkey" {
		t.Fatalf("%+v", archive.File)
	}
	if f := archive.File[1]; !f.Modified.Equal(modified) || f.Mode() != 0o755 {
		t.Errorf("%v, %v", f.Modified, f.Mode())
	}
}

func TestChecksums(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"b": "", "a": "abc", "checksums.txt": "of a run before"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := dist.Checksums(dir); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, "checksums.txt"))
	if err != nil {
		t.Fatal(err)
	}
	// The examples "abc" and "" of FIPS 180-4.
	want := "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  a\ne3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  b\n"
	if string(got) != want {
		t.Errorf("got %s", got)
	}
}
