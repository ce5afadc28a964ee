-- moonpool.cli.convert: a job's directory as one file.
local directory = require "moonpool.cli.directory"
local export = require "moonpool.job.export"
local parser = require "moonpool.cli.parser"
local summary = require "moonpool.cli.summary"

local convert = {
  name = "convert",
  summary = "Make one file of a job's directory.",
  epilog = [[
The form is the name's suffix: .npy (NumPy), .jsonl (row, id, text, vector or error), .csv (the same,
a column a dimension), .fvecs (each row its dimension and its floats), .fbin (rows, columns, floats).
Rows that failed are NaN; in .jsonl they have their error and in .csv no numbers. --int8 scales each
dimension to one byte and writes the scales to FILE.json.

Examples:
  moonpool convert vectors vectors.npy
  moonpool convert vectors vectors.jsonl
  moonpool convert vectors small.npy --int8]],
}

function convert.configure(p)
  directory.configure(p)
  p:argument("file", "File to make: .npy, .jsonl, .csv, .fvecs or .fbin."):argname "OUTFILE"
  p:flag("--f16", "Half precision (.npy).")
  p:flag("--int8", "One byte a number, calibrated by dimension (.npy).")
  p:flag("--force", "Replace the file if it is there.")
  p:flag("-q --quiet", "No summary.")
end

function convert.run(args)
  if not export.form(args.file) then
    parser.usage_error("moonpool convert", ("'%s' ends in none of %s"):format(args.file, export.forms))
  end
  local dir = directory.open("convert", args.dir)
  if not dir.index.complete then
    io.stderr:write("moonpool convert: the job is not complete; converting what there is\n")
  end
  local rows, err = export.write(dir, args.file, { f16 = args.f16, int8 = args.int8, force = args.force })
  if not rows then
    directory.fail("convert", err)
  elseif not args.quiet then
    io.stderr:write(("wrote %s into %s\n"):format(summary.counted(rows, "rows"), args.file))
  end
  return 0
end

return convert
