# bash completion for moonpool; `moonpool help completion` prints it, from the options themselves.
_moonpool() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]}
    local words='' kind=files options=''
    COMPREPLY=()
    case $command in
    run) options='--help' ;;
    embed) options='--api-key-env --batch-size --dimensions --encoding-format --f16 --field --force --header --hedge --help --id-field --input --json --max-concurrent --model --no-dedupe --no-text --normalize --output --preset --provider --quiet --retries --retry-failed --rpm --shard-rows --strict --timeout --tpm --truncate-dim --url' ;;
    status) options='--help --json' ;;
    check) options='--help --json' ;;
    convert) options='--f16 --force --help --int8 --quiet' ;;
    search) options='--any-space --api-key-env --dimensions --header --help --json --model --preset --provider --retries --timeout --url' ;;
    rerank) options='--api-key-env --batch-size --field --force --header --hedge --help --input --json --max-concurrent --model --output --preset --provider --query --quiet --raw-scores --retries --return-text --rpm --timeout --top-n --tpm --truncate --url' ;;
    classify) options='--api-key-env --batch-size --field --force --header --hedge --help --id-field --input --json --max-concurrent --model --output --preset --provider --quiet --raw-scores --retries --rpm --timeout --top --tpm --truncate --url' ;;
    post) options='--api-key-env --batch-format --force --header --hedge --help --input --json --max-concurrent --method --output --path --preset --provider --quiet --retries --rpm --timeout --tpm --url' ;;
    serve) options='--grace --help --listen' ;;
    gateway) options='--api-key-env --cache-bytes --cors --grace --header --help --listen --log --max-batch --max-connections --max-wait --model --preset --provider --request-timeout --retries --reuse-port --rpm --slots --timeout --tpm --url' ;;
    mock) options='--api-key --batch-status --chunk --concurrency --dim --dribble --error --fail-first --help --host --latency --latency-per-input --listen --max-client-batch --max-connections --max-input-tokens --max-request-tokens --model --outage --port --quota --record --record-auth --record-body --require-model --reset --seed --short --shuffle --slow --stall-first --truncate --workers' ;;
    simulate) options='--help --json --seed --svg' ;;
    esac
    case "$command $prev" in
    'embed -i' | 'embed --input' | 'embed -o' | 'embed --output') kind=files ;;
    'embed --url' | 'embed --model' | 'embed --header' | 'embed --timeout' | 'embed --retries' | 'embed --dimensions' | 'embed --batch-size' | 'embed --max-concurrent' | 'embed --hedge' | 'embed --rpm' | 'embed --tpm' | 'embed --field' | 'embed --id-field' | 'embed --shard-rows' | 'embed --truncate-dim') kind=nothing ;;
    'embed --provider') words='openai azure tei cohere voyage jina baseten bayt gemini ollama vertex bedrock huggingface mistral nim cloudflare pinecone kserve vllm llamacpp infinity nomic' ;;
    'embed --api-key-env') kind=variables ;;
    'embed --preset') words='job gateway interactive none' ;;
    'embed --encoding-format') words='base64 float none' ;;
    'search -k' | 'search --url' | 'search --model' | 'search --header' | 'search --timeout' | 'search --retries' | 'search --dimensions') kind=nothing ;;
    'search --provider') words='openai azure tei cohere voyage jina baseten bayt gemini ollama vertex bedrock huggingface mistral nim cloudflare pinecone kserve vllm llamacpp infinity nomic' ;;
    'search --api-key-env') kind=variables ;;
    'search --preset') words='job gateway interactive none' ;;
    'rerank -i' | 'rerank --input' | 'rerank -o' | 'rerank --output') kind=files ;;
    'rerank --query' | 'rerank --field' | 'rerank --top-n' | 'rerank --url' | 'rerank --model' | 'rerank --header' | 'rerank --timeout' | 'rerank --retries' | 'rerank --batch-size' | 'rerank --max-concurrent' | 'rerank --hedge' | 'rerank --rpm' | 'rerank --tpm') kind=nothing ;;
    'rerank --provider') words='openai azure tei cohere voyage jina baseten bayt gemini ollama vertex bedrock huggingface mistral nim cloudflare pinecone kserve vllm llamacpp infinity nomic' ;;
    'rerank --api-key-env') kind=variables ;;
    'rerank --preset') words='job gateway interactive none' ;;
    'classify -i' | 'classify --input' | 'classify -o' | 'classify --output') kind=files ;;
    'classify --field' | 'classify --id-field' | 'classify --top' | 'classify --url' | 'classify --model' | 'classify --header' | 'classify --timeout' | 'classify --retries' | 'classify --batch-size' | 'classify --max-concurrent' | 'classify --hedge' | 'classify --rpm' | 'classify --tpm') kind=nothing ;;
    'classify --provider') words='openai azure tei cohere voyage jina baseten bayt gemini ollama vertex bedrock huggingface mistral nim cloudflare pinecone kserve vllm llamacpp infinity nomic' ;;
    'classify --api-key-env') kind=variables ;;
    'classify --preset') words='job gateway interactive none' ;;
    'post -i' | 'post --input' | 'post -o' | 'post --output') kind=files ;;
    'post --path' | 'post --url' | 'post --header' | 'post --timeout' | 'post --retries' | 'post --max-concurrent' | 'post --hedge' | 'post --rpm' | 'post --tpm') kind=nothing ;;
    'post --method') words='GET POST PUT PATCH DELETE HEAD OPTIONS' ;;
    'post --provider') words='openai azure tei cohere voyage jina baseten bayt gemini ollama vertex bedrock huggingface mistral nim cloudflare pinecone kserve vllm llamacpp infinity nomic' ;;
    'post --api-key-env') kind=variables ;;
    'post --preset') words='job gateway interactive none' ;;
    'serve --listen') kind=files ;;
    'serve --grace') kind=nothing ;;
    'gateway --listen' | 'gateway --log') kind=files ;;
    'gateway --grace' | 'gateway --url' | 'gateway --model' | 'gateway --header' | 'gateway --timeout' | 'gateway --retries' | 'gateway --rpm' | 'gateway --tpm' | 'gateway --max-batch' | 'gateway --max-wait' | 'gateway --slots' | 'gateway --cache-bytes' | 'gateway --request-timeout' | 'gateway --cors' | 'gateway --max-connections') kind=nothing ;;
    'gateway --provider') words='openai azure tei cohere voyage jina baseten bayt gemini ollama vertex bedrock huggingface mistral nim cloudflare pinecone kserve vllm llamacpp infinity nomic' ;;
    'gateway --api-key-env') kind=variables ;;
    'gateway --preset') words='job gateway interactive none' ;;
    'mock --host' | 'mock --model' | 'mock --api-key' | 'mock --latency' | 'mock --latency-per-input' | 'mock --slow' | 'mock --reset' | 'mock --truncate' | 'mock --short' | 'mock --chunk' | 'mock --dribble' | 'mock --concurrency' | 'mock --quota' | 'mock --outage' | 'mock --fail-first' | 'mock --stall-first' | 'mock --port' | 'mock --dim' | 'mock --seed' | 'mock --workers' | 'mock --max-client-batch' | 'mock --batch-status' | 'mock --max-input-tokens' | 'mock --max-request-tokens' | 'mock --max-connections' | 'mock --record' | 'mock --error') kind=nothing ;;
    'mock --listen') kind=files ;;
    'simulate --seed') kind=nothing ;;
    'simulate --svg') kind=files ;;
    esac
    if ((COMP_CWORD == 1)); then
        words='run embed status check convert search rerank classify post serve gateway mock simulate help --help --version'
    elif [[ $command == help ]]; then
        words='run embed status check convert search rerank classify post serve gateway mock simulate licenses completion'
    elif [[ -z $words && $cur == -* ]]; then
        words=$options
    fi
    if [[ -n $words ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
    elif [[ $kind == variables ]]; then
        mapfile -t COMPREPLY < <(compgen -e -- "$cur")
    elif [[ $kind == files ]]; then
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
    fi
}
complete -F _moonpool moonpool
