# What the programs are built from. A document is no part of it, so that an edit
# of one rebuilds nothing.
{ lib }:
let
  inherit (lib) fileset;
  documents = file: file.hasExt "md";
in
fileset.toSource {
  root = ../.;
  fileset = fileset.difference (fileset.unions [
    ../go.mod
    ../go.sum
    ../agent
    ../api
    ../cli
    ../internal
    ../packaging
    ../tests
  ]) (fileset.fileFilter documents ../.);
}
